"""The reference implementation's training checkpoints (`.pth.tar`): names and sizes."""

from typing import Any, NamedTuple

from torch import Tensor

State = dict[str, Tensor]
NETWORKS = ("encoder", "predictor", "target_encoder")
_PREDICTOR_NAMES = {
    "predictor_embed.": "embed.",
    "mask_token": "mask_token",
    "predictor_blocks.": "blocks.",
    "predictor_norm.": "norm.",
    "predictor_proj.": "proj.",
}


class MetaCheckpoint(NamedTuple):
    """State dicts under this project's names, and what the shapes tell. Positions are left out: they are computed."""

    context_encoder: State
    predictor: State
    target_encoder: State
    sizes: dict[str, Any]


def is_meta(contents: Any) -> bool:
    """Whether a loaded file has this layout."""
    return isinstance(contents, dict) and all(isinstance(contents.get(name), dict) for name in NETWORKS)


def read(contents: dict[str, Any]) -> MetaCheckpoint:
    """Renames a loaded checkpoint's tensors.

    The number of heads stands nowhere in the file: it is taken from the published sizes, else width / 64 or 3.

    Raises:
        ValueError: when tensors are missing or the images of pretraining were not square.
    """
    encoder, predictor, target = ({_bare(k): v for k, v in contents[name].items()} for name in NETWORKS)
    try:
        patches = encoder.pop("pos_embed").shape[1]
        target.pop("pos_embed")
        predictor.pop("predictor_pos_embed")
        width, channels, patch_size, _ = encoder["patch_embed.proj.weight"].shape
        hidden = encoder["blocks.0.mlp.fc1.weight"].shape[0]
        predictor = {_renamed(name): tensor for name, tensor in predictor.items()}
        predictor_width = predictor["embed.weight"].shape[0]
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} is missing") from None
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} positions are no square grid, as this format always has")
    heads = {192: 3, 1280: 16, 1408: 16}.get(width, width // 64 if width % 64 == 0 else 3)
    sizes = {
        "image_size": (side * patch_size, side * patch_size),
        "patch_size": patch_size,
        "channels": channels,
        "width": width,
        "depth": _depth(encoder),
        "heads": heads,
        "mlp_ratio": hidden / width,
        "predictor_width": predictor_width,
        "predictor_depth": _depth(predictor),
    }
    return MetaCheckpoint(encoder, predictor, target, sizes)


def _bare(name: str) -> str:
    return name.removeprefix("module.")


def _renamed(name: str) -> str:
    for theirs, ours in _PREDICTOR_NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise KeyError(name)


def _depth(state: State) -> int:
    return 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
