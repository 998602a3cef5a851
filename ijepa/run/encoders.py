"""From a configuration to the description of its encoder."""

import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ijepa import config as schema
from ijepa.config.checks import check_patch_size
from ijepa.config.custom import TARGET, Custom
from ijepa.models.custom import custom_encoder
from ijepa.models.pretrained import OWN, Kind, Spec
from ijepa.models.protocol import PatchEncoder
from ijepa.models.timm_vit import OPTIONS, TimmEncoder
from ijepa.util.errors import ConfigError

HEAD_WIDTH = 64
"""Of the predictor's attention heads, where an encoder does not say how many it has."""


def spec(model: schema.Model, data: schema.Data) -> Spec:
    """The encoder that the configuration describes.

    Raises:
        ConfigError: when timm has no such model, or there is no such class, or patches do not divide the images.
    """
    height, width = data.image_size
    images: dict[str, Any] = {"image_size": (height, width), "channels": data.channels, "mean": tuple(data.mean),
              "std": tuple(data.std), "eval_crop": data.eval_crop}  # fmt: skip
    if isinstance(model, schema.Vit):
        values = model.model_dump(exclude={"init", "position_grid"})
        grid = None if model.position_grid is None else (model.position_grid[0], model.position_grid[1])
        return Spec(**values, **images, position_grid=grid)
    kind: Kind = "timm" if isinstance(model, schema.TimmVit) else "custom"
    if isinstance(model, schema.TimmVit):
        name, patch_size = model.name, model.patch_size
        options = {option: value for option in OPTIONS if (value := getattr(model, option)) is not None}
        if patch_size is not None:
            check_patch_size(patch_size, data)
    else:
        name = model.target
        options = {key: value for key, value in model.options.items() if key != "patch_size"}
        patch_size = model.options.get("patch_size")
    sizes = _sizes(kind, name, json.dumps(options, sort_keys=True), (height, width), patch_size, data.channels)
    return Spec(**OWN, **images, **sizes, kind=kind, name=name, options=options)


def told_heads(model: schema.Model) -> int | None:
    """Attention heads, where the configuration says how many."""
    return None if isinstance(model, Custom) else model.heads


@lru_cache(maxsize=8)
def _sizes(
    kind: Kind, name: str, options: str, image_size: tuple[int, int], patch_size: int | None, channels: int
) -> dict[str, Any]:
    """Patch size, width, depth and heads of an encoder, which is built to find out; random numbers stay as they are."""
    given = json.loads(options)
    with torch.random.fork_rng(devices=[]):
        if kind == "custom":
            return _checked(name, custom_encoder(name, given, image_size, patch_size, channels), image_size, channels)
        with torch.device("meta"):
            network = TimmEncoder(name, image_size, patch_size, channels, given)
    return {"patch_size": network.patch_size, "width": network.width, "depth": network.depth, "heads": network.heads}


def _checked(name: str, network: PatchEncoder, image_size: tuple[int, int], channels: int) -> dict[str, Any]:
    """The sizes of a user's encoder, which does what `PatchEncoder` says; raises ConfigError."""
    key = f"model.{TARGET}"
    assert isinstance(network, nn.Module)
    try:
        rows, columns = network.grid_of(*image_size)
        indices = torch.arange(rows * columns)[None, :-1]
        with torch.no_grad():
            found = network.eval()(torch.zeros(1, channels, *image_size), indices).shape
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(key, name, f"fails on an image: {reason}; see docs/extending.md") from error
    height, width = image_size[0] // rows, image_size[1] // columns
    if height != width or (rows * height, columns * width) != image_size:
        problem = f"its grid of {rows}x{columns} patches does not divide images of {image_size[0]}x{image_size[1]}"
        raise ConfigError(key, name, f"{problem} into squares; see docs/extending.md")
    if found != (1, indices.shape[1], network.width):
        problem = f"forward(images, indices) gives {list(found)}, expected {[1, indices.shape[1], network.width]}"
        raise ConfigError(key, name, f"{problem}; see docs/extending.md")
    heads = getattr(network, "heads", None) or max(network.width // HEAD_WIDTH, 1)
    return {"patch_size": height, "width": network.width, "depth": network.depth, "heads": heads}
