"""Encoders of the user's own classes, by ``_target_``."""

from typing import Any

import torch
from torch import nn

from ijepa.config.custom import TARGET, Custom, instantiate, load_class
from ijepa.models.protocol import PatchEncoder
from ijepa.util.errors import ConfigError

KEY = "model"


def custom_encoder(
    target: str, options: dict[str, Any], image_size: tuple[int, int], patch_size: int | None, channels: int
) -> PatchEncoder:
    """An encoder of the class ``target``; only subclasses of `nn.Module` are called, because files may name a target.

    Args:
        target: ``package.module.Class``.
        options: further arguments of the constructor.
        image_size: height and width in pixels; passed if the constructor has this parameter.
        patch_size: passed if it is not None and the constructor has this parameter.
        channels: number of image channels; passed if the constructor has this parameter.

    Raises:
        ConfigError: if the class does not exist, does not accept ``options``, or is not a `PatchEncoder`.
    """
    encoder_class = load_class(f"{KEY}.{TARGET}", target)
    if not (isinstance(encoder_class, type) and issubclass(encoder_class, nn.Module)):
        raise ConfigError(f"{KEY}.{TARGET}", target, "is not a torch.nn.Module; see docs/extending.md")
    offered: dict[str, Any] = {"image_size": image_size, "channels": channels}
    if patch_size is not None:
        offered["patch_size"] = patch_size
    with torch.device("cpu"):  # the constructor may not work on the meta device
        encoder: PatchEncoder = instantiate(
            KEY, Custom.model_validate({TARGET: target, **options}), PatchEncoder, **offered
        )
    return encoder
