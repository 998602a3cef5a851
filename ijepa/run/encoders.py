"""The spec of the encoder that a configuration describes."""

import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ijepa import config as schema
from ijepa.config.checks import check_patch_size
from ijepa.config.custom import TARGET, Custom
from ijepa.models.custom import custom_encoder
from ijepa.models.pretrained import VIT_ONLY, Kind, Spec
from ijepa.models.protocol import PatchEncoder
from ijepa.models.timm_vit import TIMM_ARGUMENTS, TimmEncoder
from ijepa.util.errors import ConfigError

HEAD_WIDTH = 64
"""Dimensions per attention head of the predictor, if the encoder has no attribute ``heads``."""


def spec(model: schema.Model, data: schema.Data) -> Spec:
    """The spec of the encoder.

    Raises:
        ConfigError: when there is no such timm model or class, or patches do not divide the images.
    """
    height, width = data.image_size
    images: dict[str, Any] = {"image_size": (height, width), "channels": data.channels, "mean": tuple(data.mean),
              "std": tuple(data.std), "eval_crop": data.eval_crop}  # fmt: skip
    if isinstance(model, schema.Vit):
        values = model.model_dump(exclude={"position_grid"})
        grid = None if model.position_grid is None else (model.position_grid[0], model.position_grid[1])
        return Spec(**values, **images, position_grid=grid)
    kind: Kind = "timm" if isinstance(model, schema.TimmVit) else "custom"
    if isinstance(model, schema.TimmVit):
        name, patch_size = model.name, model.patch_size
        options = {option: value for option in TIMM_ARGUMENTS if (value := getattr(model, option)) is not None}
        if patch_size is not None:
            check_patch_size(patch_size, data)
    else:
        name = model.target
        options = {key: value for key, value in model.options.items() if key != "patch_size"}
        patch_size = model.options.get("patch_size")
    sizes = _sizes(kind, name, json.dumps(options, sort_keys=True), (height, width), patch_size, data.channels)
    return Spec(**VIT_ONLY, **images, **sizes, kind=kind, name=name, options=options)


def configured_heads(model: schema.Model) -> int | None:
    """The number of attention heads, if it is a configuration key; None for encoders of the user's."""
    return None if isinstance(model, Custom) else model.heads


@lru_cache(maxsize=8)
def _sizes(
    kind: Kind, name: str, options: str, image_size: tuple[int, int], patch_size: int | None, channels: int
) -> dict[str, Any]:
    """Patch size, width, depth and heads, read from an encoder built for that; keeps torch's random state."""
    given = json.loads(options)
    with torch.random.fork_rng(devices=[]):
        if kind == "custom":
            encoder = custom_encoder(name, given, image_size, patch_size, channels)
            return _validated_sizes(name, encoder, image_size, channels)
        with torch.device("meta"):
            network = TimmEncoder(name, image_size, patch_size, channels, given)
    return {"patch_size": network.patch_size, "width": network.width, "depth": network.depth, "heads": network.heads}


def _validated_sizes(name: str, network: PatchEncoder, image_size: tuple[int, int], channels: int) -> dict[str, Any]:
    """The sizes of a user's encoder; raises ConfigError if it does not fulfil `PatchEncoder`."""
    key = f"model.{TARGET}"
    assert isinstance(network, nn.Module)
    try:
        rows, columns = network.grid_of(*image_size)
        indices = torch.arange(rows * columns)[None, :-1]
        image = torch.randn(1, channels, *image_size, generator=torch.Generator().manual_seed(0))
        masked = image.clone()
        masked[..., -(image_size[0] // rows) :, -(image_size[1] // columns) :] = 0  # the patch that is not in indices
        with torch.no_grad():
            network.eval()
            features, of_masked = network(image, indices), network(masked, indices)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(key, name, f"fails on an image: {reason}; see docs/extending.md") from error
    height, width = image_size[0] // rows, image_size[1] // columns
    if height != width or (rows * height, columns * width) != image_size:
        problem = f"its grid of {rows}x{columns} patches does not divide images of {image_size[0]}x{image_size[1]}"
        raise ConfigError(key, name, f"{problem} into squares; see docs/extending.md")
    if features.shape != (1, indices.shape[1], network.width):
        shape, expected = list(features.shape), [1, indices.shape[1], network.width]
        raise ConfigError(
            key, name, f"forward(images, indices) gives {shape}, expected {expected}; see docs/extending.md"
        )
    if not torch.allclose(features, of_masked, atol=1e-4):
        problem = "forward(images, indices) sees patches that are not in indices, so the context would see the targets"
        raise ConfigError(key, name, f"{problem}; see docs/extending.md")
    heads = getattr(network, "heads", None) or max(network.width // HEAD_WIDTH, 1)
    return {"patch_size": height, "width": network.width, "depth": network.depth, "heads": heads}
