"""The attentive probe: what an average hides, it reads."""

import numpy as np
import pytest
import torch
from helpers import composed, train_config
from PIL import Image

from ijepa.config import Attentive, Linear
from ijepa.data.sets import Arrays, Source
from ijepa.evaluation import attentive, linear
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import untrained_encoder
from ijepa.run import build


def spots(count, seed):
    """Noise with a bright patch among the upper or the lower ones: where it is tells the class, an average does not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = []
    for label in labels:
        pixels = rng.integers(0, 60, (16, 16))
        row, column = 8 * label + 4 * rng.integers(0, 2), 4 * rng.integers(0, 4)
        pixels[row : row + 4, column : column + 4] += 190
        images.append(Image.fromarray(pixels.astype(np.uint8)))
    return Arrays(images, {"class": labels.tolist()}, 1)


@pytest.fixture
def ctx():
    config = train_config("data=digits", "data.image_size=16", "model.width=24", "model.depth=1", "model.heads=3",
                          "data.workers=0")  # fmt: skip
    data = build.data(config.data, Source(spots(320, 0), spots(96, 1)), None, 0, config.hardware, 0)
    encoder = untrained_encoder(build.spec(config.model, config.data), 0)
    return EvalContext(data, Runtime(torch.device("cpu")), 0, quiet=True), EvaluatedModel("random init", encoder)


@pytest.mark.integration
def test_it_reads_what_an_average_hides(ctx):
    ctx, evaluated = ctx
    values = {**composed("task=attentive").task.attentive, "epochs": 25, "batch_size": 32, "lr": [1e-6, 5e-3],
              "crop_scale": None}  # fmt: skip
    before = {name: tensor.clone() for name, tensor in evaluated.encoder.state_dict().items()}
    found = attentive.AttentiveTask(Attentive(**values)).evaluate(evaluated, ctx)["class"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in evaluated.encoder.state_dict().items())
    assert found.results["attentive"].value > 0.9
    assert found.details["chosen"]["lr"] == 5e-3
    slow, fast = found.details["probes"]
    assert fast["test"] == found.results["attentive"].value > slow["test"] + 0.2
    again = attentive.AttentiveTask(Attentive(**values)).evaluate(evaluated, ctx)["class"]
    assert again.details == found.details
    probe = {**composed("task=linear").task.linear, "epochs": 12, "batch_size": 32, "layers": [1], "crop_scale": None}
    averaged = linear.LinearTask(Linear(**probe)).evaluate(evaluated, ctx)["class"].results["linear"].value
    assert averaged < found.results["attentive"].value - 0.08
    assert attentive.AttentiveTask(Attentive(**values)).evaluate(EvaluatedModel("raw pixels", None), ctx) == {}
