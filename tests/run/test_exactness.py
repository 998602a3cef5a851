"""One run, however it is cut: workers, devices, micro-batches, resumes, precision."""

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import EXACT, SMALL, assert_same, fit, rows, train_config, weights

from ijepa.callbacks import checkpoint as writing
from ijepa.run import build
from ijepa.run.resume import point_from_path
from ijepa.run_folder import RunFolder
from ijepa.util.errors import UserError

pytestmark = pytest.mark.integration

TIMED = ("seconds", "images_per_second")


@pytest.fixture
def images(pictures):
    """24 images in batches of 8: an epoch ends after the third step."""
    return ("data=folder", f"data.root={pictures}", "data.image_size=[16,24]", "model.patch_size=4",
            "data.batch_size=8", "data.workers=0", "schedule.max_steps=5")  # fmt: skip


def global_batches(config, workers, devices, accumulation):
    """Images and masks of each step, put together from all devices and micro-batches."""
    hardware = config.hardware.model_copy(update={"devices": devices, "accumulation": accumulation})
    source = build.sources.build(config.data, config.seed)
    data = config.data.model_copy(update={"workers": workers})
    shares = []
    for device in range(devices):
        module = build.data(data, source, build.sampler(config), 5, hardware, config.seed)
        module.trainer = SimpleNamespace(global_step=0, global_rank=device, world_size=devices)
        shares.append(list(module.train_dataloader()))
    for step in range(5):
        micro = [share[step * accumulation + i] for i in range(accumulation) for share in shares]
        yield (
            torch.cat([batch.images for batch in micro]),
            torch.cat([batch.masks.context for batch in micro]),
            torch.cat([batch.masks.targets for batch in micro]),
        )


@pytest.mark.parametrize("masking", ["multiblock", "random"])
def test_workers_devices_and_accumulation_change_no_batch(images, masking):
    config = train_config(*SMALL, *images, f"masking={masking}")
    expected = list(global_batches(config, 0, 1, 1))
    first, again = expected[0][0], expected[3][0]
    assert not torch.equal(first, again)  # another epoch, other crops
    for cut in [(2, 1, 1), (8, 1, 1), (0, 2, 1), (0, 1, 2), (2, 2, 2), (0, 4, 2)]:
        for one, other in zip(expected, global_batches(config, *cut), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)), cut


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize(("workers", "accumulation"), [(0, 1), (2, 2)])
@pytest.mark.parametrize(
    ("stop", "every"), [(2, 1), (3, 1), (2, 3)], ids=["in mid-epoch", "at an epoch's end", "in mid-row"]
)
def test_a_run_cut_in_two_equals_one(tmp_path, images, precision, workers, accumulation, stop, every):
    """To the bit: weights, target encoder, optimiser, counters, metrics."""
    changes = (*images, f"hardware.precision={precision}", f"data.workers={workers}",
               f"hardware.accumulation={accumulation}", f"callbacks.log_every_steps={every}")  # fmt: skip
    fit(tmp_path / "a", *changes)
    fit(tmp_path / "b", *changes, stop=stop)
    fit(tmp_path / "b", *changes, last=tmp_path / "b" / "checkpoints" / "last.ckpt")
    one, other = (torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in "ab")
    assert_same(one["state_dict"], other["state_dict"], **EXACT)
    states = [saved["optimizer_states"][0]["state"] for saved in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(name.startswith(("jepa.context_encoder.", "jepa.predictor.")) for name in states[0])
    for name, state in states[0].items():
        assert_same(state, states[1][name], **EXACT)
    counters = [
        {name: value for name, value in saved["callbacks"]["Recorder"].items() if name not in TIMED}
        for saved in (one, other)
    ]
    assert counters[0] == counters[1]
    table, cut = ([{k: v for k, v in row.items() if k not in TIMED} for row in rows(tmp_path / run)] for run in "ab")
    assert table == cut
    assert [row["step"] for row in table] == (["1", "2", "3", "4", "5"] if every == 1 else ["1", "3", "5"])


@pytest.mark.parametrize("within", [False, True], ids=["saved at the end", "saved on the way"])
@pytest.mark.parametrize(("before", "after", "stop"), [(1, 1, 2), (1, 2, 3), (4, 1, 2), (2, 4, 1)])
def test_a_run_goes_on_with_another_accumulation(tmp_path, images, before, after, stop, within):
    """Each image once, whatever the number of micro-batches so far."""
    whole = fit(tmp_path / "whole", *images)
    fit(tmp_path / "cut", *images, f"hardware.accumulation={before}", "callbacks.checkpoint_every_steps=1",
        "callbacks.checkpoint_keep=9",
        stop=None if within else stop)  # fmt: skip
    last = tmp_path / "cut" / "checkpoints" / f"step-{stop:06}.ckpt"
    rest = fit(tmp_path / "cut", *images, f"hardware.accumulation={after}", last=last)
    assert_same(weights(whole), weights(rest), atol=2e-6, rtol=0)
    assert rest.recorder.flops == pytest.approx(whole.recorder.flops)


def test_muon_resumes_to_the_bit(tmp_path, images):
    changes = (*images, "optimizer=muon", "callbacks.checkpoint_every_steps=1")
    whole = fit(tmp_path / "whole", *changes)
    fit(tmp_path / "cut", *changes, stop=2)
    rest = fit(tmp_path / "cut", *changes, last=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert_same(weights(whole), weights(rest), **EXACT)
    assert rest.recorder.flops == whole.recorder.flops > fit(tmp_path / "adamw", *images).recorder.flops


def test_standardized_targets_of_several_depths(tmp_path, images):
    """Their running averages are saved, and belong to steps, not to micro-batches."""
    changes = (*images, "objective.target_depths=[0,1]", "objective.standardize_targets=true",
               "callbacks.checkpoint_every_steps=1")  # fmt: skip
    whole = fit(tmp_path / "whole", *changes)
    fit(tmp_path / "cut", *changes, stop=2)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    rest = fit(tmp_path / "cut", *changes, last=last)
    assert_same(weights(whole), weights(rest), **EXACT)
    assert weights(whole)["statistics.steps"] == 5
    micro = fit(tmp_path / "micro", *changes, "hardware.accumulation=4")
    assert_same(weights(whole), weights(micro), atol=2e-6, rtol=0)


def test_bf16_true_keeps_weights_in_float32(tmp_path, images):
    """They agree with float32's within bf16's rounding; activations are bf16, gradients arrive in float32."""
    seen = []
    plain, low = (fit(tmp_path / p, *images, f"hardware.precision={p}") for p in ("32-true", "bf16-true"))
    saved = torch.load(low.checkpoint.path, weights_only=True)
    assert {tensor.dtype for tensor in saved["state_dict"].values()} == {torch.float32}
    assert {s["exp_avg"].dtype for s in saved["optimizer_states"][0]["state"].values()} == {torch.float32}
    for one, other in zip(rows(tmp_path / "32-true"), rows(tmp_path / "bf16-true"), strict=True):
        assert float(one["train/loss"]) == pytest.approx(float(other["train/loss"]), rel=0.02)
    network = low.module.jepa.context_encoder
    handle = network.blocks[0].register_forward_hook(lambda block, inputs, output: seen.append(output.dtype))
    assert network(torch.rand(2, 3, 16, 24)).dtype == torch.bfloat16
    handle.remove()
    assert seen == [torch.bfloat16]
    assert not torch.equal(weights(plain)["predictor.proj.weight"], weights(low)["predictor.proj.weight"])


def test_bf16_true_with_checkpointing_is_the_same(tmp_path, images):
    changes = (*images, "hardware.precision=bf16-true", "schedule.max_steps=2")
    plain, saving = fit(tmp_path / "a", *changes), fit(tmp_path / "b", *changes, "hardware.checkpointing=true")
    assert_same(weights(plain), weights(saving), **EXACT)


def test_regularisers_with_accumulation(tmp_path, images):
    """They compare the images of a micro-batch: other weights than of one large batch, and learnt by the same rules."""
    changes = (*images, "data.batch_size=16", "objective=variance_covariance", "schedule.max_steps=2")
    small = fit(tmp_path / "small", *changes)
    large = (*images, "data.batch_size=32", "hardware.accumulation=2", "objective=variance_covariance")
    run = fit(tmp_path / "large", *large, "schedule.max_steps=2")
    assert run.trainer.accumulate_grad_batches == 2
    for row in rows(tmp_path / "small") + rows(tmp_path / "large"):
        assert 0 < float(row["train/variance"]) < 1
        assert float(row["train/covariance"]) > 0
    assert not torch.equal(weights(small)["predictor.proj.weight"], weights(run)["predictor.proj.weight"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_the_momentum_update_does_not_vanish_in_bf16(tmp_path, images, precision):
    """At momentum .9999 a target weight moves by a ten-thousandth of the difference: bf16 would round that away."""
    changes = (*images, f"hardware.precision={precision}", "schedule=constant", "schedule.max_steps=1",
               "schedule.warmup_steps=0", "schedule.momentum.start=0.9999")  # fmt: skip
    run = build.run(train_config(*SMALL, *changes), tmp_path)
    before = {name: p.clone() for name, p in run.module.jepa.target_encoder.named_parameters()}
    run.trainer.fit(run.module, run.data)
    context = dict(run.module.jepa.context_encoder.named_parameters())
    moved = 0
    for name, parameter in run.module.jepa.target_encoder.named_parameters():
        expected = before[name].double().lerp(context[name].double(), 1e-4)
        torch.testing.assert_close(parameter.double(), expected, atol=1e-9, rtol=1.2e-7)
        moved += int((parameter != before[name]).sum())
    assert moved > 0.5 * sum(p.numel() for p in context.values())


def test_checkpoints_by_steps(tmp_path, images):
    fit(tmp_path, *images, "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=3")
    folder = tmp_path / "checkpoints"
    names = ["last.ckpt", "step-000003.ckpt", "step-000004.ckpt", "step-000005.ckpt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "last.ckpt").samefile(folder / "step-000005.ckpt")
    assert torch.load(folder / "step-000004.ckpt", weights_only=True)["global_step"] == 4


def test_checkpoints_by_the_clock(tmp_path, images, monkeypatch):
    clock = iter(range(0, 10_000, 40))  # each look at it takes 40 seconds
    monkeypatch.setattr(writing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    fit(tmp_path, *images, "callbacks.checkpoint_every_steps=null", "callbacks.checkpoint_every_minutes=1.5",
        "callbacks.checkpoint_keep=9")  # fmt: skip
    found = [path.stem for path in RunFolder(tmp_path).checkpoints.numbered()]
    assert found == ["step-000003", "step-000005"]


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, images, monkeypatch):
    save = torch.save

    def broken(contents, path):
        save(contents, path)
        if contents["global_step"] == 3:
            with Path(path).open("r+b") as file:
                file.truncate(1000)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="No space"):
        fit(tmp_path, *images, "callbacks.checkpoint_every_steps=1")
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["last.ckpt", "step-000001.ckpt", "step-000002.ckpt"]
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_what_a_killed_process_left_behind_goes_away(tmp_path, images):
    rest = tmp_path / "checkpoints" / ".step-000002.ckpt.abc123"
    rest.parent.mkdir()
    rest.write_bytes(b"half")
    fit(tmp_path, *images)
    assert not rest.exists()


def test_going_back_drops_what_came_later(tmp_path, images):
    whole = fit(tmp_path, *images, "callbacks.checkpoint_every_steps=2", "callbacks.checkpoint_keep=9")
    folder = tmp_path / "checkpoints"
    whole.checkpoint.rewind(folder / "step-000002.ckpt", 2)
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "step-000002.ckpt"]
    assert (folder / "last.ckpt").samefile(folder / "step-000002.ckpt")


def test_the_images_have_to_be_the_same(tmp_path, images, pictures):
    run = build.run(train_config(*SMALL, *images), tmp_path / "a")
    moved = tmp_path / "elsewhere" / "images"
    shutil.copytree(pictures, moved)
    elsewhere = (*images, f"data.root={moved}")
    assert build.run(train_config(*SMALL, *elsewhere), tmp_path / "b").data.identity == run.data.identity
    (moved / "train" / "cold" / "train-3.png").rename(moved / "train" / "cold" / "train-33.png")
    assert build.run(train_config(*SMALL, *elsewhere), tmp_path / "b").data.identity != run.data.identity


def test_a_folder_without_a_run(tmp_path):
    started = time.monotonic()
    with pytest.raises(UserError, match="no run to resume"):
        point_from_path(tmp_path, [])
    assert time.monotonic() - started < 5
