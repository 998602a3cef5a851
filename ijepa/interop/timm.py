"""timm's VisionTransformer, whose parameter names this project uses; timm stores position embeddings, too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ijepa.interop.weights import (
    KEPT,
    SPEC_KEY,
    State,
    Weights,
    Which,
    bare,
    encoder_sizes,
    placed_or_stored,
    spec_of,
    statistics,
    table_of,
)
from ijepa.models.encoder import Encoder
from ijepa.models.pretrained import Spec
from ijepa.models.protocol import PatchEncoder
from ijepa.models.timm_vit import OPTIONS
from ijepa.util.files import write_pickle, write_safetensors

FORM = "a timm VisionTransformer"
HEAD, CUSTOM_HEAD = "head.", "ijepa_head."
"""Of classifiers; the second beside encoders of the user's own, which may have any names."""
POSITIONS = "pos_embed"
NESTED = ("state_dict_ema", "state_dict", "model_ema", "model")
"""Keys under which timm's training script and others store a state dict; EMA weights first, as in timm."""
EITHER = "it does not say whether it is the target or the context encoder: used for either"
FOREIGN = {
    "cls_token": "a class token",
    "fc_norm.weight": "a norm after pooling (fc_norm) instead of before",
    "norm_pre.weight": "a norm before its blocks",
    "blocks.0.ls1.gamma": "layer scale",
    "blocks.0.attn.q_norm.weight": "query and key norms",
}
"""Features of other timm vision transformers that are not supported."""


def to_timm(encoder: PatchEncoder) -> State:
    """A state dict that ``VisionTransformer(class_token=False, global_pool="avg", num_classes=0, fc_norm=False)`` loads
    strictly; with ``reg_tokens`` and ``no_embed_class=True`` where there are registers.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    return {POSITIONS: table_of(encoder), **state} if isinstance(encoder, Encoder) else state


def arguments(spec: Spec) -> dict[str, Any]:
    """What timm's ``VisionTransformer``, or ``create_model`` with a name, takes for such an encoder."""
    if spec.kind == "timm":
        sizes = {OPTIONS[name]: value for name, value in spec.options.items()}
        images = {"img_size": spec.image_size, "patch_size": spec.patch_size, "in_chans": spec.channels}
        return {**images, **sizes, "num_classes": 0}
    return {
        "img_size": spec.image_size,
        "patch_size": spec.patch_size,
        "in_chans": spec.channels,
        "embed_dim": spec.width,
        "depth": spec.depth,
        "num_heads": spec.heads,
        "mlp_ratio": spec.mlp_ratio,
        "class_token": False,
        "global_pool": "avg",
        "num_classes": 0,
        "fc_norm": False,
        **({"reg_tokens": spec.registers, "no_embed_class": True} if spec.registers else {}),
    }


def from_timm(state: State, stored: bool = False) -> State:
    """The encoder's state dict, without classifiers; with position embeddings only if they are ``stored``."""
    left = (HEAD,) if stored else (HEAD, POSITIONS)
    return {name: tensor for name, tensor in state.items() if not name.startswith(left)}


def nested(contents: dict[str, Any]) -> dict[str, Any] | None:
    """The timm state dict in a loaded file, or None if there is none."""
    for state in (contents, *(contents.get(name) for name in NESTED)):
        if isinstance(state, dict) and any(name.endswith("patch_embed.proj.weight") for name in state):
            return state
    return None


def read(state: dict[str, Any], heads: int | None = None, source: str = FORM) -> Weights:
    """An encoder from a state dict.

    Args:
        state: timm's names.
        heads: number of attention heads; None: as for the published size.
        source: a description, for messages.

    Raises:
        ValueError: if it is not a supported network.
    """
    tensors = bare(state)
    for name, what in FOREIGN.items():
        if name in tensors:
            raise ValueError(f"this vision transformer has {what} ({name}), which I-JEPA's does not have")
    if POSITIONS not in tensors:
        raise ValueError(f"{POSITIONS} is missing")
    sizes = encoder_sizes(tensors, heads)
    (mean, std), note = statistics(sizes["channels"])
    spec = spec_of(placed_or_stored(tensors[POSITIONS]), sizes, mean, std)
    stored = spec.positions == "stored"
    left = sorted(name for name in tensors if name.startswith(HEAD))
    guessed = f"it does not store its number of heads: assumed {sizes['heads']}, as published for width {spec.width}"
    notes = [
        *([guessed] if heads is None else []),
        note,
        EITHER,
    ]
    notes += [KEPT] if stored else []
    notes += [f"left out: {', '.join(left)}"] if left else []
    found = {name: tensor.float() for name, tensor in from_timm(tensors, stored).items()}
    return Weights(source, spec, {None: found}, notes=tuple(notes)).check()


def is_name(text: str) -> bool:
    """Whether timm knows a model of this name, with or without the tag of its weights."""
    return timm.is_model(text.removeprefix("timm/"))


def download(name: str) -> Weights:
    """The pretrained weights that timm has under a name; timm caches downloads.

    Raises:
        ValueError: if they are not I-JEPA's.
        OSError, RuntimeError and others: whatever timm raises if they could not be downloaded.
    """
    model = timm.create_model(name.removeprefix("timm/"), pretrained=True, num_classes=0)
    blocks = getattr(model, "blocks", None)
    if not isinstance(model, timm.models.VisionTransformer) or not blocks:
        raise ValueError(f"timm builds a {type(model).__name__} for it, not a VisionTransformer")
    return of_model(model, dict(model.pretrained_cfg), name)


def of_model(model: nn.Module, described: dict[str, Any], name: str) -> Weights:
    """The weights of a timm VisionTransformer.

    Args:
        model: the model with its weights.
        described: its ``pretrained_cfg``: mean, std and crop_pct.
        name: its name in timm.

    Raises:
        ValueError: if it is not a supported network.
    """
    blocks: Any = model.blocks
    found = read(model.state_dict(), blocks[0].attn.num_heads, f"timm's {name}")
    # of I-JEPA's checkpoints timm takes the part called encoder, the context encoder
    return _described(found, described, "context" if "ijepa" in name else None)


def _described(found: Weights, described: dict[str, Any], held: Which | None) -> Weights:
    """Adds the normalisation from timm's description, and which encoder it is."""
    values = {key: tuple(described[key]) for key in ("mean", "std") if isinstance(described.get(key), list | tuple)}
    if len(values) != 2 or {len(value) for value in values.values()} != {found.spec.channels}:
        return found
    crop = float(described.get("crop_pct") or 1.0)
    known = [statistics(found.spec.channels)[1], *([EITHER] if held else [])]
    notes = [note for note in found.notes if note not in known]
    spec = replace(found.spec, mean=values["mean"], std=values["std"], eval_crop=crop)
    return Weights(found.form, spec, {held: found.encoders[None]}, notes=tuple(notes))


def read_hub(config: dict[str, Any], state: dict[str, Any], heads: int | None = None) -> Weights:
    """An encoder from a folder as timm pushes it to a hub; config.json has the normalisation.

    Raises:
        ValueError: if it is not a supported network.
    """
    model_args = config.get("model_args")
    told = model_args.get("num_heads") if isinstance(model_args, dict) else None
    found = read(state, heads or told, f"a folder of timm's {config.get('architecture')}")
    described = config.get("pretrained_cfg")
    return _described(found, described if isinstance(described, dict) else {}, None)


def write(path: Path, encoder: PatchEncoder, spec: Spec, which: str, heads: dict[str, nn.Module] | None = None) -> None:
    """Writes an encoder under timm's names, with its description and normalisation in the metadata.

    Args:
        path: the file.
        encoder: the weights.
        spec: description of the encoder.
        which: which encoder it is: ``target`` or ``context``.
        heads: linear classifiers by label set; a single one is saved as ``head.weight`` and ``head.bias``, as in
            timm, several as ``head.NAME.weight``.
    """
    state = to_timm(encoder)
    own = CUSTOM_HEAD if spec.kind == "custom" else HEAD
    for name, head in (heads or {}).items():
        prefix = f"{own}{name}." if len(heads or {}) > 1 else own
        state |= {prefix + part: tensor.detach().cpu().contiguous() for part, tensor in head.state_dict().items()}
    if path.suffix in (".pt", ".pth", ".bin"):  # without a place for metadata
        write_pickle(path, state)
        return
    write_safetensors(path, state, {SPEC_KEY: json.dumps({**spec.plain(), "encoder": which}), "format": "pt"})
