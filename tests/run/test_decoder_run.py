"""Runs that train a sketch decoder of another run's representations."""

import csv
import json
import re
import shutil

import pytest
import torch
from helpers import EXACT, TINY, assert_same, command
from safetensors.torch import load_file

from ijepa.data import sources
from ijepa.run import outputs, runs
from ijepa.run_folder.config import read_config

pytest.importorskip("diffusers", reason="only experiment=decoder needs it")

SMALL = ("experiment=decoder", "decoder.size=8", "decoder.width=16", "decoder.heads=2", "decoder.depth=1",
         "decoder.steps=3", "hardware=cpu", "hardware.precision=32-true", "data.workers=0", "data.batch_size=16",
         "schedule.max_steps=4", "schedule.warmup_steps=1", "callbacks.log_every_steps=1",
         "callbacks.checkpoint_every_steps=2", "callbacks.checkpoint_keep=9", "callbacks.health_every_steps=1",
         "callbacks.health_images=32")  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A finished run of I-JEPA."""
    folder = tmp_path_factory.mktemp("encoder") / "run"
    result = command("train.py", "data=digits", *TINY, f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


def losses(folder):
    return measures(folder, "train/loss")


def measures(folder, column):
    with (folder / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ("prediction", ()),
        ("image", ("decoder.shown=image", "masking.num_targets=1")),
        ("target", ("decoder.pooled=false", "decoder.predicts=flow", "decoder.sampler=euler", "decoder.withheld=0")),
        ("prediction", ("decoder.shown=image", "decoder.untrained=true", "decoder.guidance=2")),
        ("nothing", ("decoder.predicts=epsilon", "decoder.sampler=ddim")),
    ],
)
def test_a_run(encoder, invoke, tmp_path, condition, values):
    """Sizes, images and normalisation are the encoder's; networks are exported, samples drawn."""
    folder = tmp_path / "run"
    code, out, error = invoke("train.py", *SMALL, *values, f"checkpoint={encoder}", f"decoder.condition={condition}",
                              f"run_dir={folder}")  # fmt: skip
    assert code == 0, error
    assert "1438 for training, 359 for validation" in out
    shown = "the image" if "decoder.shown=image" in values else "a target block"
    assert f"draws {shown} at 8x8 pixels" in out
    assert str(folder / "pictures" / "samples.png") in out
    assert (folder / "pictures" / "samples.png").stat().st_size > 10_000
    assert len(losses(folder)) == 4
    assert "step 0  health: warming up: loss " in out
    assert len(measures(folder, "health/noise_90")) == 5
    gains = {name: measures(folder, f"health/gain_over_{name}") for name in ("another", "none")}
    assert len(gains["another"]) == (0 if condition == "nothing" else 5)
    assert len(gains["none"]) == (0 if condition == "nothing" or "decoder.withheld=0" in values else 5)
    assert gains["another"][:1] == pytest.approx([0][: len(gains["another"])], abs=1e-6)  # a new one predicts zeros
    verdicts = [found["verdict"] for found in json.loads((folder / "health.json").read_text())["verdicts"]]
    assert verdicts[0] == "warming up"
    assert len(verdicts) == 5
    assert "context_gain" not in (folder / "metrics.csv").read_text()
    contents = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert contents["ijepa_decoder"]["condition"] == condition
    averaged = {name.removeprefix("sketcher.decoder."): tensor for name, tensor in contents["state_dict"].items()
                if name.startswith("sketcher.decoder.")}  # fmt: skip
    assert_same(load_file(folder / "decoder.safetensors"), averaged, **EXACT)
    assert json.loads((folder / "summary.json").read_text())["flops"] > 0
    code, _, error = invoke("evaluate.py", f"checkpoint={folder}")
    assert code == 2
    assert "a decoder's checkpoint, without an encoder of its own" in error
    few = ["task.decode.blocks=10", "task.decode.samples=2", "task.decode.train_blocks=64", "data.workers=0",
           "task.decode.classifier_epochs=1", "task.decode.batch_size=4", "hardware=cpu",
           f"output={tmp_path / 'decode'}"]  # fmt: skip
    code, out, error = invoke("evaluate.py", f"checkpoint={folder}", "task=decode", *few)
    assert code == 0, error
    told = json.loads((tmp_path / "decode" / "metrics.json").read_text())
    none = [] if "decoder.withheld=0" in values else ["none"]
    assert list(told["results"]) == ["its own", "another's", *none, "the block"]
    if condition == "nothing":
        assert told["results"]["its own"]["decode_closer"] == 0.5
        assert told["results"]["its own"]["decode_variance"] == 1
    assert told["details"]["its own"]["decode"]["label"] == "class"
    assert told["details"]["its own"]["decode"]["blocks"] == 10
    assert 0 <= told["results"]["its own"]["decode_closer"] <= 1
    for name in ("samples", "representations"):
        assert (tmp_path / "decode" / f"{name}.png").stat().st_size > 3_000


@pytest.mark.integration
def test_representations_of_the_reference_implementations_file(checkpoint_file, pictures, invoke, tmp_path):
    """Which does not say how many attention heads there are."""
    values = [*SMALL, f"checkpoint={checkpoint_file}", "data=folder", f"data.root={pictures}", "data.batch_size=4",
              f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    code, _, error = invoke("train.py", *values)
    assert code == 2
    assert "the number of attention heads cannot be read from weights; add model.heads=N" in error
    code, out, error = invoke("train.py", *values, "model.heads=3")
    assert code == 0, error
    assert "from the predictor's output for the block, average-pooled" in out
    code, _, error = invoke("train.py", f"resume={tmp_path / 'run'}", "force=true", "schedule.max_steps=5")
    assert code == 0, error


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_bits(encoder, invoke, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    values = [*SMALL, f"checkpoint={encoder}", "hardware.accumulation=2"]
    assert invoke("train.py", *values, f"run_dir={whole}")[0] == 0
    execute = runs.execute

    def stopped(run, last=None):
        run.trainer.fit_loop.epoch_loop.max_steps = 2
        return execute(run, last)

    monkeypatch.setattr(runs, "execute", stopped)
    assert invoke("train.py", *values, f"run_dir={cut}")[0] == 0
    monkeypatch.setattr(runs, "execute", execute)
    code, _, error = invoke("train.py", f"resume={cut}")
    assert code == 0, error
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, cut))
    assert_same(one["state_dict"], other["state_dict"], **EXACT)
    assert losses(whole) == losses(cut)


@pytest.mark.slow
def test_a_run_is_repeated_and_resumed_without_the_checkpoint(encoder, invoke, tmp_path, monkeypatch):
    """Repeated: with its own images and batches. Resumed: with other weights of the same sizes named, and not used."""
    folder, again, moved = tmp_path / "run", tmp_path / "again", tmp_path / "moved"
    shutil.copytree(encoder, moved)
    assert invoke("train.py", *SMALL, f"checkpoint={moved}", "data.crop_scale=[0.5,1]", f"run_dir={folder}")[0] == 0
    code, _, error = invoke("train.py", "--config-dir", folder, "--config-name", "config", f"run_dir={again}")
    assert code == 0, error
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, again))
    assert_same(one["state_dict"], other["state_dict"], **EXACT)
    shutil.rmtree(moved)
    half = folder / "checkpoints" / "step-000002.ckpt"
    code, _, error = invoke("train.py", f"resume={half}")
    assert code == 2
    assert f"checkpoint={moved}: no such file or folder" in error
    code, _, error = invoke("train.py", f"resume={half}", f"checkpoint={encoder}")
    assert code == 0, error
    assert_same(one["state_dict"], torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"],
                **EXACT)  # fmt: skip


@pytest.mark.slow
def test_two_processes_are_as_one(encoder, tmp_path):
    for name in ("single", "ddp", "fsdp"):
        hardware = [] if name == "single" else [f"hardware.strategy={name}", "hardware.devices=2"]
        # A new decoder's outputs are zeros, so most gradients are: Adam would scale up their rounding errors.
        values = [*SMALL, "optimizer.eps=1e-3", f"checkpoint={encoder}", *hardware, f"run_dir={tmp_path / name}"]
        result = command("train.py", *values)
        assert result.returncode == 0, result.stderr
    single = load_file(tmp_path / "single" / "decoder.safetensors")
    for name in ("ddp", "fsdp"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "single"), abs=2e-6)
        assert_same(load_file(tmp_path / name / "decoder.safetensors"), single, atol=2e-6, rtol=0)
        for column in ("health/gain_over_another", "health/noise_50"):
            assert measures(tmp_path / name, column) == pytest.approx(measures(tmp_path / "single", column), abs=2e-6)
        assert (tmp_path / name / "pictures" / "samples.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], r"^error: checkpoint is not set; add checkpoint=RUN_DIR"),
        (["checkpoint=nowhere"], r"^error: checkpoint=nowhere: no such file or folder"),
        (["checkpoint={encoder}", "init={encoder}"], r"^error: init=.*: a decoder starts from random weights"),
        (["checkpoint={encoder}", "decoder.sampler=euler"], r"^error: decoder.sampler=euler: .* try ddim or dpm$"),
        (["checkpoint={encoder}", "decoder.predicts=flow"], r"^error: decoder.sampler=dpm: .* try euler$"),
        (["checkpoint={encoder}", "decoder.size=9"], r"^error: decoder.size=9: .* try 8$"),
        (["checkpoint={encoder}", "decoder.withheld=0", "decoder.guidance=2"], r"^error: decoder.guidance=2.0: needs"),
        (["checkpoint={encoder}", "decoder.width=18"], r"^error: decoder.width=18: .* try 20$"),
        (["checkpoint={encoder}/encoder.safetensors"], r"^error: decoder.condition=prediction: the checkpoint has no "),
        (["checkpoint={encoder}", "optimizer=muon"], r"^error: optimizer=muon: .* try adamw$"),
        (["checkpoint={encoder}", "model.width=96"], r"^error: model.width: the networks are the checkpoint's; omit"),
        (["checkpoint={encoder}", "data.image_size=64"], r"^error: data.image_size=\[64,64\]: .* omit it$"),
        (
            ["checkpoint={encoder}", "hardware.precision=bf16-true"],
            r"^error: hardware.precision=bf16-true: rounds noise levels and positions; try bf16-mixed$",
        ),
        (["checkpoint={encoder}", "decoder.steps=1000"], r"^error: decoder.steps=1000: "),
        (["checkpoint={encoder}", "data=folder"], r"^error: data.root is not set; add data.root=FOLDER$"),
        (["checkpoint={encoder}", "masking=random"], r"^error: masking=random: has no blocks .* try multiblock$"),
        (["checkpoint={encoder}", "data.std=[0.1]"], r"^error: data.std=\[0.1\]: is stored with the encoder; omit it"),
    ],
)
@pytest.mark.integration
def test_what_cannot_be_drawn(encoder, invoke, tmp_path, values, message):
    values = [value.format(encoder=encoder) for value in values]
    code, _, error = invoke("train.py", *SMALL, *values, f"run_dir={tmp_path / 'run'}")
    assert code == 2
    assert re.search(message, error.strip()), error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["task=decode", "checkpoint={encoder}"], r"checkpoint=.*: not a decoder's run; train one"),
        (["task=decode", "checkpoint={encoder}/encoder.safetensors"], r"checkpoint=.*: not a decoder's run; train one"),
        (["task=decode", "checkpoint=nowhere"], r"checkpoint=nowhere: no such file or folder"),
        (["task=[decode,knn]", "checkpoint={encoder}"], r"task=knn: is for encoders, and task=decode for decoders"),
        (["task=decode", "checkpoint=random"], r"checkpoint=random: no such file or folder"),
    ],
)
@pytest.mark.integration
def test_what_cannot_be_evaluated_as_a_decoder(encoder, invoke, values, message):
    code, _, error = invoke("evaluate.py", *(value.format(encoder=encoder) for value in values))
    assert code == 2
    assert re.search(f"^error: {message}", error.strip()), error


@pytest.fixture(scope="module")
def tiny(encoder, tmp_path_factory):
    """A decoder of the run, with a seed of its own."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    values = [*SMALL, "schedule.max_steps=2", "callbacks.pictures=null", "seed=5", f"checkpoint={encoder}"]
    result = command("train.py", *values, f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_held_out_images_stay_held_out(encoder, tiny, invoke, tmp_path, monkeypatch):
    """They are the encoder's, whatever the decoder's seed is, also where the decoder is resumed or evaluated."""
    stored, seeds = read_config(tiny / "config.yaml"), []
    assert (stored.seed, stored.decoder.split_seed) == (5, read_config(encoder / "config.yaml").seed)
    build = sources.build

    def recorded(data, seed):
        seeds.append(seed)
        return build(data, seed)

    monkeypatch.setattr(sources, "build", recorded)
    shutil.copytree(tiny, tmp_path / "run")
    code, _, error = invoke("train.py", f"resume={tmp_path / 'run'}", "force=true", "schedule.max_steps=3", "seed=5")
    assert code == 0, error
    code, _, error = invoke("evaluate.py", f"checkpoint={tmp_path / 'run'}", "task=decode", "task.decode.label=no")
    assert code == 2
    assert len(seeds) >= 2
    assert set(seeds) == {stored.decoder.split_seed}


def test_the_split_is_that_of_the_same_folder(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    folder = tmp_path / "images"
    (tmp_path / "config.yaml").write_text(f"seed: 7\ndata:\n  source: folder\n  root: {folder}\n")
    monkeypatch.chdir(tmp_path)
    for root in (str(folder), "images", f"{folder}/", "./images"):
        assert outputs.split_seed(tmp_path, "folder", root, 0) == 7
    for source, root in (("folder", "other"), ("folder", None), ("list", "images")):
        assert outputs.split_seed(tmp_path, source, root, 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["task.decode.label=weather"], r"task.decode.label=weather: the images have no such map or labels; try class"),
        (["task.decode.train_blocks=1"], r"task.decode.label=null: fewer than 2 classes among 1 blocks of training"),
        (["task.decode.batch_size=1"], r"task.decode.batch_size=1: should be greater than or equal to 2"),
        (["task.decode.blocks=1"], r"task.decode.blocks=1: should be greater than or equal to 2"),
        (["data.val_fraction=0.0006"], r"fewer than 2 of 1 validation images can be read; decoding compares several"),
    ],
)
def test_evaluations_that_cannot_be(tiny, invoke, tmp_path, values, message):
    code, _, error = invoke("evaluate.py", f"checkpoint={tiny}", "task=decode", "hardware=cpu", "data.workers=0",
                            f"output={tmp_path / 'found'}", *values)  # fmt: skip
    assert code == 2
    assert re.search(f"^error: {message}", error.strip()), error
    assert not list(tmp_path.glob("found/*.json"))
    if "weather" in message:
        assert not (tmp_path / "found").exists()


@pytest.mark.integration
def test_a_checkpoint_is_for_decoders(encoder, invoke, tmp_path):
    code, _, error = invoke("train.py", "data=digits", f"checkpoint={encoder}", f"run_dir={tmp_path / 'run'}")
    assert code == 2
    assert "is for decoders; add experiment=decoder" in error
