"""The numbers of the reference implementation."""

import json

import pytest
import torch
from helpers import REFERENCE, reference_name
from safetensors.torch import load_file

from ijepa.config import LearningRate, Schedule
from ijepa.interop import meta
from ijepa.interop.loading import load_encoder
from ijepa.masking import Masks, Reference
from ijepa.training import optimizer as optim
from ijepa.training.objective import latent_objective
from ijepa.training.schedule import EMASchedule


@pytest.fixture
def jepa(checkpoint_file):
    return meta.read(torch.load(checkpoint_file, weights_only=True), heads=3).networks()


def test_positions_are_the_reference_s(jepa, checkpoint_file):
    stored = torch.load(checkpoint_file, weights_only=True)
    device = torch.device("cpu")
    for network, key, name in (
        (jepa.context_encoder, "encoder", "pos_embed"),
        (jepa.predictor, "predictor", "predictor_pos_embed"),
    ):
        torch.testing.assert_close(
            network.positions((8, 8), device), stored[key][f"module.{name}"][0], atol=1e-6, rtol=0
        )


def test_three_training_steps(jepa, trace):
    """Activations and losses within 1e-5, gradients within 1e-4 of each tensor's largest entry, weights within 1e-6."""
    tensors, recorded = trace
    optimizer = optim.adamw(jepa.named_parameters(), 1e-3, (0.9, 0.999), 1e-8, fused=False)
    objective = latent_objective("smooth_l1")
    for step, values in enumerate(recorded["steps"]):
        images = tensors[f"{step}.images"]
        masks = Masks(tensors[f"{step}.context_indices"], tensors[f"{step}.target_indices"])
        with torch.no_grad():
            output = jepa.target_encoder(images)
        torch.testing.assert_close(output, tensors[f"{step}.target_encoder_output"], atol=1e-5, rtol=0)
        result = jepa(images, masks)
        for name, tensor in result._asdict().items():
            torch.testing.assert_close(tensor, tensors[f"{step}.{name}"], atol=1e-5, rtol=0)
        loss = objective(*result, masks.context)
        assert loss.total.item() == pytest.approx(values["smooth_l1"], abs=1e-5)
        squared = latent_objective("l2")(*result, masks.context).total.item()
        assert squared == pytest.approx(values["mse"], abs=1e-5)
        optimizer.zero_grad()
        loss.total.backward()
        if step == 0:
            checked = 0
            for name, parameter in jepa.named_parameters():
                if parameter.grad is not None:
                    gradient = tensors[f"grad.{reference_name(name)}"]
                    scale = gradient.abs().max().item()
                    torch.testing.assert_close(parameter.grad, gradient, atol=max(1e-4 * scale, 1e-9), rtol=0)
                    checked += 1
            assert checked == sum(key.startswith("grad.") for key in tensors)
        optim.set_hyperparameters(optimizer, values["lr"], values["weight_decay"])
        optimizer.step()
        jepa.update_target_encoder(values["momentum"])
    after = jepa.state_dict()
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, tensors[f"after3.{reference_name(name)}"], atol=1e-6, rtol=0)
    assert len(after) >= sum(key.startswith("after3.") for key in tensors) - 3  # positions are no parameters here


@pytest.mark.parametrize("run", ["in1k_vith14", "short"])
def test_schedules(run):
    recorded = json.loads((REFERENCE / "schedules.json").read_text())[run]
    per_epoch, peak = recorded["iterations_per_epoch"], recorded["peak_lr"]
    curves = {
        name: {"shape": shape, "start": recorded[name][0], "end": recorded[name][1]}
        for name, shape in (("weight_decay", "cosine"), ("momentum", "linear"))
    }
    schedule = Schedule(
        epochs=recorded["epochs"], max_steps=None, warmup_epochs=0, warmup_steps=None, cooldown_epochs=0,
        cooldown_steps=None,
        learning_rate=LearningRate(shape="cosine", start=recorded["start_lr"] / peak, end=recorded["final_lr"] / peak),
        **curves,
    )  # fmt: skip
    plan = EMASchedule(recorded["epochs"] * per_epoch, recorded["warmup_epochs"] * per_epoch, 0, peak, schedule)
    rows = next(value for key, value in recorded.items() if key.startswith("rows"))
    assert len(rows) > 30
    for step, lr, weight_decay, momentum in rows:
        assert plan.lr(step) == pytest.approx(lr, rel=1e-9)
        assert plan.weight_decay(step) == pytest.approx(weight_decay, rel=1e-9)
        assert plan.momentum(step) == pytest.approx(momentum, rel=1e-12)


def test_reference_masks():
    recorded = load_file(REFERENCE / "masks.safetensors")
    sampler = Reference((14, 14), 4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), min_keep=10)
    generator = torch.Generator().manual_seed(13)
    for step in range(4):
        masks = sampler.draw(step, 8, generator)
        assert torch.equal(masks.context, recorded[f"{step}.context_indices"])
        assert torch.equal(masks.targets, recorded[f"{step}.target_indices"])


def test_load_encoder_reads_the_reference_s_checkpoint(checkpoint_file, trace):
    tensors, _ = trace
    encoder = load_encoder(checkpoint_file, heads=3)
    mean, std = encoder.mean, encoder.std
    images = tensors["0.images"] * std + mean  # the trace's images are already normalised
    torch.testing.assert_close(encoder(images), tensors["0.target_encoder_output"], atol=1e-5, rtol=0)
    context = load_encoder(checkpoint_file, encoder="context", heads=3)
    assert not torch.equal(context(images), encoder(images))
