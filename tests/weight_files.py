"""Files of weights with known contents, and what is said of those that cannot be read."""

import pytest
import torch

import ijepa
from ijepa.interop import weights
from ijepa.interop.command import main
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.models.pretrained import Spec
from ijepa.util.errors import UserError

CLOSE = {"atol": 1e-5, "rtol": 0}


SHAPES = {  # images, patches, channels, positions, their grid
    "square": ((32, 32), 8, 3, "index", None),
    "wide": ((24, 40), 8, 3, "index", None),
    "scaled": ((24, 40), 8, 4, "scaled", (6, 7)),
    "grey": ((16, 16), 4, 1, "index", None),
    "twelve": ((16, 24), 8, 12, "scaled", None),
}


def spec_of(name):
    size, patch, channels, positions, grid = SHAPES[name]
    mean, std = (0.1, 0.2, 0.3, 0.4) * 3, (0.5, 0.6, 0.7, 0.8) * 3
    return Spec(size, patch, channels, 48, 2, 3, 4.0, positions, grid, mean[:channels], std[:channels], 0.9)


def networks(spec, seed=0, attention="joint"):
    """Three different networks, every parameter of which is far from its start."""
    torch.manual_seed(seed)
    predictor = Predictor(spec.width, spec.width, spec.grid, 24, 2, spec.heads, positions=spec.positions,
                          position_grid=spec.position_grid, attention=attention)  # fmt: skip
    jepa = JEPA(spec.build(), predictor)
    for parameter in jepa.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return jepa


def saved(spec, folder, seed=0, attention="joint"):
    """A training run's checkpoint, and its networks."""
    jepa = networks(spec, seed, attention)
    state = {f"jepa.{name}": tensor for name, tensor in jepa.state_dict().items()}
    torch.save({weights.SPEC_KEY: spec.plain(), "state_dict": state, "global_step": 7}, folder / "run.ckpt")
    return folder / "run.ckpt", jepa


def convert(*arguments):
    assert main(["convert", *map(str, arguments)]) == 0


def images_of(spec, count=3):
    return torch.rand(count, spec.channels, *spec.image_size)


def normalised(spec, images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return (images - mean) / std


def fault(path, **options):
    with pytest.raises(UserError) as caught:
        ijepa.load_encoder(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text
