"""Steps whose loss or gradients are not finite."""

import json
import math

import lightning as L
import pytest
import torch
from helpers import EXACT, SMALL, assert_same, rows, small_encoder, train_config
from torch import nn

from ijepa.models.targets import TargetStatistics
from ijepa.run import build
from ijepa.training import optimizer as optim
from ijepa.training.skipping import NonFiniteSteps
from ijepa.util.errors import UserError

STANDARDIZED = ("objective.target_depths=[0,2]", "objective.standardize_targets=true")


class Poison(L.Callback):
    """Makes one number of the gradients, or the whole loss, infinite or NaN in some steps, counted from 1."""

    def __init__(self, steps, value=math.nan, loss=False):
        self.steps, self.value, self.loss = steps, value, loss
        self.seen = []

    def on_before_backward(self, trainer, module, loss):
        if self.loss and trainer.global_step + 1 in self.steps:
            loss.data.fill_(self.value)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if not self.loss and trainer.global_step + 1 in self.steps:
            module.jepa.predictor.mask_token.grad.view(-1)[0] = self.value

    def on_train_batch_end(self, trainer, module, *_):
        state = {name: tensor.clone() for name, tensor in module.jepa.state_dict().items()}
        moments = trainer.optimizers[0].state_dict()["state"]
        state |= {f"{key} {name}": value.clone() for key, each in moments.items() for name, value in each.items()}
        self.seen.append(state)


def fit(folder, poison, *overrides, last=None, stop=None):
    run = build.run(train_config(*SMALL, *overrides), folder)
    run.trainer.callbacks.insert(0, poison)
    if stop is not None:
        run.trainer.fit_loop.epoch_loop.max_steps = stop
    run.trainer.fit(run.module, run.data, ckpt_path=last, weights_only=True)
    return run


@pytest.mark.integration
@pytest.mark.parametrize(
    ("value", "loss", "options"),
    [
        (math.nan, False, ()),
        (math.inf, False, ("optimizer.clip_grad_norm=1", *STANDARDIZED)),
        (-math.inf, True, ("optimizer=muon", "hardware.accumulation=2")),
        (math.nan, False, ("optimizer=muon", *STANDARDIZED)),
    ],
)
def test_such_a_step_changes_nothing_and_the_next_one_does(tmp_path, value, loss, options):
    poison = Poison([2], value, loss)
    run = fit(tmp_path, poison, *options)
    states = poison.seen[1::2] if "hardware.accumulation=2" in options else poison.seen
    assert_same(states[0], states[1], **EXACT)
    assert not torch.equal(states[1]["context_encoder.patch_embed.proj.weight"],
                           states[2]["context_encoder.patch_embed.proj.weight"])  # fmt: skip
    assert all(tensor.isfinite().all() for tensor in states[-1].values())
    assert run.module.skipped.state() == {"total": 1, "in_a_row": 0}
    table = rows(tmp_path)
    assert [row["skipped_steps"] for row in table] == ["", "1", "", ""]
    clean = fit(tmp_path / "clean", Poison([]), *options)
    assert [row["lr"] for row in rows(tmp_path / "clean")] == [row["lr"] for row in table]
    assert rows(tmp_path / "clean")[0]["train/loss"] == table[0]["train/loss"]
    assert clean.module.skipped.state()["total"] == 0


@pytest.mark.integration
def test_a_first_step_can_be_skipped(tmp_path):
    run = fit(tmp_path, Poison([1], loss=True), *STANDARDIZED, "callbacks.checkpoint_every_steps=1")
    assert run.module.jepa.statistics.steps == 3
    assert run.module.skipped.state() == {"total": 1, "in_a_row": 0}


@pytest.mark.integration
@pytest.mark.parametrize("cut", [2, 3])
def test_a_resumed_run_is_the_same(tmp_path, cut):
    """Cut after a skipped step, and after the one behind it; with rows that span the cut."""
    options = (*STANDARDIZED, "callbacks.log_every_steps=4", "optimizer=muon")
    whole = fit(tmp_path / "whole", Poison([2], loss=True), *options)
    fit(tmp_path / "cut", Poison([2], loss=True), *options, stop=cut)
    rest = fit(tmp_path / "cut", Poison([]), *options, last=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    assert_same(whole.module.state_dict(), rest.module.state_dict(), **EXACT)
    assert whole.module.skipped.state() == rest.module.skipped.state() == {"total": 1, "in_a_row": 0}
    losses = [[row["train/loss"] for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    skipped = [[row["skipped_steps"] for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert skipped[0] == skipped[1] == ["", "1"]
    assert all(math.isfinite(float(loss)) for loss in losses[0])


@pytest.mark.integration
@pytest.mark.parametrize("kept", ["one", "none"])
def test_the_run_stops_and_names_the_last_good_checkpoint(tmp_path, kept):
    options = ["callbacks.max_skipped_steps=3", "schedule.max_steps=9", "callbacks.checkpoint_every_steps=1"]
    options[2:] = ["callbacks.checkpoint_every_steps=null"] if kept == "none" else options[2:]
    with pytest.raises(UserError) as caught:
        fit(tmp_path, Poison(range(4, 99)), *options)
    message = str(caught.value)
    assert message.startswith("callbacks.max_skipped_steps=3: steps 4 to 6 were skipped, as their loss or gradients")
    assert "images of step 4: image " in message
    assert "and 12 more" in message
    checkpoints = sorted(path.name for path in (tmp_path / "checkpoints").glob("*"))
    if kept == "none":
        assert "start again with a lower optimizer.lr" in message
        assert checkpoints == []
        return
    # the checkpoint after step 3 has the weights that fail
    assert f"the last good checkpoint is {tmp_path}/checkpoints/step-000002.ckpt; try python train.py resume" in message
    assert checkpoints == ["last.ckpt", "step-000002.ckpt"]
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.integration
def test_one_skipped_step_is_no_divergence(tmp_path):
    checks = ("callbacks.health_every_steps=2", "callbacks.health_images=16", "schedule.max_steps=6")
    run = fit(tmp_path, Poison([2], loss=True), *checks)
    assert [verdict.verdict for verdict in run.health.verdicts[1:3]] == ["warming up"] * 2
    run = fit(tmp_path / "all", Poison(range(1, 9), loss=True), *checks)
    verdict = run.health.verdicts[-1]
    assert verdict.verdict == "diverging"
    assert "6 steps in a row were skipped" in verdict.text


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("skipped", [False, True])
def test_fused_optimisers_decide_on_the_device(muon, skipped):
    """What GPUs do, with torch's fused AdamW for CPUs: the same as without it, but for rounding."""
    kind, results = optim.MuonAdamW if muon else optim.adamw, []
    for fused in (False, True):
        network = small_encoder()
        optimizer = kind(network.named_parameters(), 1e-2, (0.9, 0.95), 1e-8, fused)
        draw = torch.Generator().manual_seed(0)
        for step in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=draw)
                if skipped and step == 1:
                    parameter.grad[..., 0] = math.nan
            optim.skip(optimizer, torch.tensor(skipped and step == 1))
            assert fused or (parameter.grad is None) == (skipped and step == 1)
            optimizer.step()
        state = optimizer.state_dict()["state"]
        moments = {f"{key} {name}": value for key, each in state.items() for name, value in each.items()}
        results.append({**network.state_dict(), **moments})
    assert_same(*results, atol=1e-6, rtol=1e-5)
    assert all(tensor.isfinite().all() for tensor in results[1].values())


def test_the_ema_and_the_statistics_of_a_skipped_step():
    run = build.networks(train_config(*SMALL, *STANDARDIZED))
    for parameter in run.context_encoder.parameters():
        parameter.data.add_(1)
    before = {name: tensor.clone() for name, tensor in run.state_dict().items()}
    run.update_target_encoder(0.5, torch.tensor(True))
    assert_same(before, run.state_dict(), **EXACT)
    run.update_target_encoder(0.5, torch.tensor(False))
    assert not torch.equal(before["target_encoder.norm.weight"], run.state_dict()["target_encoder.norm.weight"])

    taken, skipping = TargetStatistics(4, 3), TargetStatistics(4, 3)
    draw = torch.Generator().manual_seed(0)
    for step in range(4):
        targets = torch.randn(5, 4, 3, generator=draw)
        skipping(targets if step not in (0, 2) else targets / 0)
        skipping.update(skipped=torch.tensor(step in (0, 2)))
        if step not in (0, 2):
            taken(targets)
            taken.update()
    assert_same(taken.state_dict(), skipping.state_dict(), **EXACT)


def test_what_counts_as_not_finite():
    steps = NonFiniteSteps()
    found = []
    for loss, gradient in ((1.0, 1.0), (math.nan, 1.0), (1.0, -math.inf), (1.0, 1e30), (math.inf, 0.0), (1.0, 0.0)):
        steps.note(torch.tensor(1.0))
        steps.note(torch.tensor(loss))
        found.append(bool(steps.decide([torch.ones(3), torch.tensor([0.0, gradient])])))
    assert found == [False, True, True, True, True, False]
    assert steps.state() == {"total": 4, "in_a_row": 0}
    steps.note(torch.tensor(1.0))
    assert not steps.decide([])  # nothing had a gradient
    restored = NonFiniteSteps()
    restored.load(json.loads(json.dumps(steps.state())))
    assert restored.state() == steps.state()


def test_an_optimiser_of_the_user_s_is_skipped_by_its_gradients():
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.ones(1, 2)).sum().backward()
    optim.skip(optimizer, torch.tensor(True))
    optimizer.step()
    assert torch.equal(layer.weight, before)
