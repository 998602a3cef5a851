"""Encoders of the user's own, by ``_target_``."""

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
    """An encoder of the class that ``target`` names, an `nn.Module`; files may name one, and nothing else is called.

    Args:
        target: ``package.module.Class``.
        options: the constructor's own arguments.
        image_size: height and width in pixels; passed, as those below, where the constructor has such a parameter.
        patch_size: passed when it is not None.
        channels: of the images.

    Raises:
        ConfigError: when there is no such class, it takes other options or lacks what `PatchEncoder` asks for.
    """
    made = load_class(f"{KEY}.{TARGET}", target)
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ConfigError(f"{KEY}.{TARGET}", target, "is no torch.nn.Module; see docs/extending.md")
    given: dict[str, Any] = {"image_size": image_size, "channels": channels}
    if patch_size is not None:
        given["patch_size"] = patch_size
    with torch.device("cpu"):  # what the class does may not work on the meta device
        found: PatchEncoder = instantiate(
            KEY, Custom.model_validate({TARGET: target, **options}), PatchEncoder, **given
        )
    return found
