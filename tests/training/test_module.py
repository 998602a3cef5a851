"""Training steps in one process: what the trainer, the module and the data do together."""

import lightning as L
import pytest
import torch
from helpers import EXACT, SMALL, assert_same, fit, rows, train_config, weights

from ijepa.loggers import MetricsCSV
from ijepa.run import build

pytestmark = pytest.mark.integration


def test_the_checkpoint_holds_the_momentum_update(tmp_path):
    run = fit(tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    state = {name.removeprefix("jepa."): tensor for name, tensor in saved["state_dict"].items()}
    assert_same(weights(run), state, **EXACT)
    assert saved["global_step"] == 4
    target, context = (
        torch.cat([p.flatten() for p in network.parameters()])
        for network in (run.module.jepa.target_encoder, run.module.jepa.context_encoder)
    )
    assert 0 < (target - context).abs().max() < 0.1


def test_the_same_seed_gives_the_same_weights(tmp_path):
    first, again, other = fit(tmp_path / "a"), fit(tmp_path / "b"), fit(tmp_path / "c", "seed=1")
    assert_same(weights(first), weights(again), **EXACT)
    assert not torch.equal(first.module.jepa.predictor.embed.weight, other.module.jepa.predictor.embed.weight)


@pytest.mark.parametrize("masking", ["masking=multiblock", "masking.surplus=keep", "masking=random"])
def test_accumulation_equals_the_large_batch(tmp_path, masking):
    whole, parts = fit(tmp_path / "a", masking), fit(tmp_path / "b", masking, "hardware.accumulation=4")
    assert_same(weights(whole), weights(parts), atol=2e-6, rtol=0)
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert float(one["train/loss"]) == pytest.approx(float(other["train/loss"]), abs=1e-5)
        assert one["images"] == other["images"]
        if masking != "masking.surplus=keep":  # padding is to the longest of a micro-batch
            assert float(one["flops"]) == pytest.approx(float(other["flops"]))


def test_a_signal_waits_for_the_step_to_end(tmp_path):
    """In the middle of an accumulation, too; and rows that were logged after the checkpoint are written anew."""
    overrides = ("hardware.accumulation=4",)
    whole = fit(tmp_path / "a", *overrides)
    cut = build.run(train_config(*SMALL, *overrides), tmp_path / "b")

    class Signal(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 5:
                cut.checkpoint.signals.number = 15

    cut.trainer.callbacks.insert(0, Signal())
    cut.trainer.fit(cut.module, cut.data, weights_only=True)
    assert cut.trainer.global_step == 2
    MetricsCSV(tmp_path / "b" / "metrics.csv").log_metrics({"train/loss": 7}, step=3)
    rest = build.run(train_config(*SMALL, *overrides), tmp_path / "b")
    rest.metrics.cut(2)
    rest.trainer.fit(rest.module, rest.data, ckpt_path=rest.checkpoint.path, weights_only=True)
    assert_same(weights(whole), weights(rest), **EXACT)
    assert [row["step"] for row in rows(tmp_path / "b")] == ["1", "2", "3", "4"]
    assert rows(tmp_path / "b")[2]["train/loss"] == rows(tmp_path / "a")[2]["train/loss"]


def test_evaluations_stand_beside_images_flops_and_seconds(tmp_path):
    changes = ("callbacks.evaluate_every_epochs=0.03", "callbacks.log_every_steps=100", "task.knn.batch_size=512")
    fit(tmp_path, *changes)
    evaluated = [row for row in rows(tmp_path) if row["val/knn20"]]
    assert [row["step"] for row in evaluated] == ["3"]
    assert int(evaluated[0]["images"]) == 48
    assert float(evaluated[0]["flops"]) > 0


def test_metrics_count_images_flops_and_seconds(tmp_path):
    run = fit(tmp_path)
    table = rows(tmp_path)
    assert [row["step"] for row in table] == ["1", "2", "3", "4"]
    assert [int(row["images"]) for row in table] == [16, 32, 48, 64]
    flops = [float(row["flops"]) for row in table]
    assert flops == sorted(flops)
    assert flops[0] > 16 * 2 * sum(p.numel() for p in run.module.jepa.predictor.blocks.parameters())
    assert float(table[-1]["seconds"]) > float(table[0]["seconds"]) > 0
    assert float(table[-1]["epoch"]) == pytest.approx(64 / 1438)
    plan = run.module.schedule
    for step, row in enumerate(table):
        assert float(row["lr"]) == pytest.approx(plan.lr(step))
        assert float(row["weight_decay"]) == pytest.approx(plan.weight_decay(step))
        assert float(row["momentum"]) == pytest.approx(plan.momentum(step))


@pytest.mark.parametrize(
    "override",
    [
        "objective=smooth_l1",
        "objective=l1",
        "objective=pixels",
        "objective.target=input",
        "objective=variance_covariance",
        "masking=rasterized",
        "masking=block",
        "masking=reference",
        "masking.surplus=keep",
        "optimizer.clip_grad_norm=0.1",
        "schedule=constant",
        "model.positions=scaled",
        "data.image_size=[32,48]",
        "data.channels=3",
        "data.flip=true",
        "hardware.precision=bf16-mixed",
        "hardware.checkpointing=true",
        "hardware.checkpointing=selective",
    ],
)
def test_options_train(tmp_path, override):
    extra = {"masking=reference": ["masking.min_keep=4"], "data.channels=3": ["data.mean=[0.3,0.3,0.3]",
             "data.std=[0.3,0.3,0.3]"]}.get(override, [])  # fmt: skip
    run = fit(tmp_path, override, *extra, "schedule.max_steps=2")
    assert run.trainer.global_step == 2
    assert float(rows(tmp_path)[-1]["train/loss"]) > 0


@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", False), ("bf16-true", False)])
def test_attention_is_written_out_where_the_fused_one_is_slow(tmp_path, precision, fused):
    run = fit(tmp_path, f"hardware.precision={precision}", "predictor.attention=cross", "schedule.max_steps=1")
    found = [part.fused_attn for part in run.module.modules() if hasattr(part, "fused_attn")]
    assert len(found) == sum(len(network.blocks) for network in run.module.networks())
    assert set(found) == {fused}


def test_checkpointing_and_clipping_change_what_they_should(tmp_path):
    plain = fit(tmp_path / "a")
    for kind in ("true", "selective"):
        saving = fit(tmp_path / kind, f"hardware.checkpointing={kind}")
        assert_same(weights(plain), weights(saving), atol=1e-6, rtol=0)
    clipped = fit(tmp_path / "c", "optimizer.clip_grad_norm=1e-9", "optimizer.eps=1")
    torch.manual_seed(clipped.config.seed)
    initial = build.networks(
        clipped.config
    ).predictor.proj.bias  # not decayed; with eps = 1, steps scale with gradients
    assert (clipped.module.jepa.predictor.proj.bias - initial).abs().max() < 1e-9
    assert (plain.module.jepa.predictor.proj.bias - initial).abs().max() > 1e-5
