"""The linear probe's heads, against torch's own optimiser and by hand; the probe on images."""

import numpy as np
import pytest
import torch
from helpers import train_config
from torch import nn
from torch.nn import functional as F

from ijepa.config import Linear
from ijepa.data import sources
from ijepa.distributed.ranks import SINGLE_PROCESS, Ranks
from ijepa.evaluation import augmentation, linear
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.heads import Heads
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build
from ijepa.util.errors import UserError

RATES, DECAYS = torch.tensor([0.1, 0.5, 0.02]), torch.tensor([0.0, 0.01, 0.3])


def batches(count=5, width=6, classes=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(16, width, generator=generator), torch.randint(classes, (16,), generator=generator)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_head_is_one_that_torch_trains_alone(batch_norm):
    heads = Heads(6, 3, RATES, DECAYS, batch_norm, 0.9, False, torch.Generator().manual_seed(0))
    alone = []
    for i, (rate, decay) in enumerate(zip(RATES.tolist(), DECAYS.tolist(), strict=True)):
        layer = nn.Linear(6, 3)
        layer.weight.data, layer.bias.data = heads.weight[i].T.clone(), heads.bias[i, 0].clone()
        network = nn.Sequential(nn.BatchNorm1d(6, affine=False) if batch_norm else nn.Identity(), layer)
        groups = [{"params": [layer.weight], "weight_decay": decay}, {"params": [layer.bias]}]
        alone.append((network, torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)))
    for step, (features, labels) in enumerate(batches()):
        factor = 0.1**step
        heads.loss(features, labels).backward()
        heads.step(factor)
        for (network, optimizer), rate in zip(alone, RATES.tolist(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.zero_grad()
            F.cross_entropy(network(features), labels).backward()
            optimizer.step()
    heads.eval()
    features, _ = next(batches(1))
    for logits, (network, _) in zip(heads(features), alone, strict=True):
        torch.testing.assert_close(logits, network.eval()(features), atol=1e-6, rtol=1e-5)


def test_lars_by_hand():
    """Two steps; You et al.: a step is as long as the weights, times the trust coefficient and the learning rate."""
    heads = Heads(4, 2, torch.tensor([0.5]), torch.tensor([0.1]), False, 0.9, True, torch.Generator().manual_seed(0))
    weight, bias = heads.weight.detach().double().numpy()[0], heads.bias.detach().double().numpy()[0, 0]
    moved, shifted = np.zeros_like(weight), np.zeros_like(bias)
    for features, labels in batches(2, 4, 2):
        heads.loss(features, labels).backward()
        gradient, slope = heads.weight.grad.double().numpy()[0], heads.bias.grad.double().numpy()[0, 0]
        heads.step(2.0)
        gradient = gradient + 0.1 * weight
        moved = 0.9 * moved + 0.001 * np.linalg.norm(weight) / np.linalg.norm(gradient) * gradient
        shifted = 0.9 * shifted + slope
        weight, bias = weight - 1.0 * moved, bias - 1.0 * shifted
    np.testing.assert_allclose(heads.weight.detach().numpy()[0], weight, atol=1e-7)
    np.testing.assert_allclose(heads.bias.detach().numpy()[0, 0], bias, atol=1e-6)


def task(**changes):
    values = {
        "epochs": 3, "batch_size": 64, "optimizer": "sgd", "momentum": 0.9, "lr": [0.1, 1.0], "weight_decay": [0],
        "layers": [1, 2], "batch_norm": [False, True], "milestones": [2], "lr_end": 0, "crop_scale": [0.5, 1],
        "flip": False, "holdout": 0.2, "labels": None,
    }  # fmt: skip
    return Linear(**{**values, **changes})


@pytest.fixture
def ctx():
    config = train_config("data=digits", "model.width=24", "model.depth=2", "data.workers=0")
    source = sources.build(config.data, 0)
    data = build.data(config.data, source, None, 0, config.hardware, 0)
    return EvalContext(data, Runtime(torch.device("cpu")), 0, quiet=True), build.spec(config.model, config.data)


@pytest.mark.integration
def test_the_probe_reads_digits(ctx):
    ctx, spec = ctx
    evaluated = EvaluatedModel("random init", untrained_encoder(spec, 0))
    found = linear.LinearTask(task(epochs=10, milestones=None)).evaluate(evaluated, ctx)["class"]
    heads = found.details["heads"]
    assert len(heads) == 8
    assert {(head["layers"], head["batch_norm"], head["lr"]) for head in heads} == {
        (n, norm, lr) for n in (1, 2) for norm in (False, True) for lr in (0.1, 1.0)
    }
    best = max(heads, key=lambda head: head["holdout"])
    assert {name: best[name] for name in found.details["chosen"]} == found.details["chosen"]
    assert found.results["linear"].value == best["test"]
    assert best["test"] > 0.4
    again = linear.LinearTask(task(epochs=10, milestones=None)).evaluate(evaluated, ctx)["class"]
    assert again.details == found.details


@pytest.mark.integration
def test_the_probe_reads_pixels(ctx):
    found = linear.LinearTask(task(crop_scale=None, epochs=2)).evaluate(EvaluatedModel("raw pixels", None), ctx[0])[
        "class"
    ]
    assert len(found.details["heads"]) == 4  # pixels have no layers
    assert found.results["linear"].value > 0.8


def test_too_few_images_for_a_step():
    holdout_rows, train_rows = augmentation.hold_out(0.99, 12, 0)
    assert (len(holdout_rows), len(train_rows)) == (11, 1)
    with pytest.raises(UserError, match="1 training images are too few for batches of 2; use more images"):
        augmentation.EpochBatchSampler(train_rows, 2, 5, 0, SINGLE_PROCESS)
    with pytest.raises(UserError, match="3 training images are too few for batches of 8 on 8 devices; use more"):
        augmentation.EpochBatchSampler(torch.arange(3), 2, 5, 0, Ranks(0, 8))


@pytest.mark.integration
@pytest.mark.parametrize("evaluated", ["random init", "raw pixels"])
@pytest.mark.parametrize("flip", [False, True])
def test_cached_features_equal_those_of_the_augmented_images(ctx, evaluated, flip):
    ctx, spec = ctx
    chosen = task(crop_scale=None, flip=flip)
    encoder = None if evaluated == "raw pixels" else untrained_encoder(spec, 0)
    train, _ = ctx.features(EvaluatedModel(evaluated, encoder), 1, 64)
    batches = augmentation.EpochBatchSampler(train.indices[:200], 64, 2, ctx.seed, SINGLE_PROCESS)
    data = linear.TrainingData(EvaluatedModel(evaluated, encoder), ctx, train, 1)
    ways = [way(chosen, data, batches) for way in (linear._cached_features, linear._augmented_features)]
    count = 0
    for (known, rows), (encoded, same) in zip(*ways, strict=True):
        assert torch.equal(rows, same)
        torch.testing.assert_close(known, encoded, atol=1e-5, rtol=0)
        count += 1
    assert count == 6
    if flip:
        share = torch.stack([augmentation.flipped(0, epoch, train.indices) for epoch in range(20)]).double().mean()
        assert share == pytest.approx(0.5, abs=0.02)


@pytest.mark.integration
def test_what_is_held_out_is_not_trained_on(ctx, monkeypatch):
    shown = []
    read = augmentation.AugmentedDataset.__getitem__
    monkeypatch.setattr(
        augmentation.AugmentedDataset, "__getitem__", lambda self, view: shown.append(view) or read(self, view)
    )
    ctx, _ = ctx
    linear.LinearTask(task(batch_size=16)).evaluate(
        EvaluatedModel("raw pixels", None), ctx
    )  # with crops: image by image
    count = len(ctx.data.source.train)
    kept = {view.image for view in shown}
    assert len(kept) <= count - round(0.2 * count)
    for epoch in range(3):
        images = [view.image for view in shown if view.epoch == epoch]
        assert len(images) == len(set(images))
        assert len(images) > 0.75 * count


@pytest.mark.parametrize(
    ("milestones", "epoch", "factor"),
    [([15, 30], 14.9, 1), ([15, 30], 15, 0.1), ([15, 30], 40, 0.01), (None, 0, 1), (None, 25, 0.505), (None, 50, 0.01)],
)
def test_schedules(milestones, epoch, factor):
    chosen = task(milestones=milestones, lr_end=0.01, epochs=50)
    assert linear._lr_factor(chosen, epoch) == pytest.approx(factor)
