"""Weights of timm's VisionTransformer: our parameter names, plus position embeddings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ijepa.interop.weights import (
    SPEC_KEY,
    STORED_NOTE,
    State,
    Weights,
    Which,
    assumed_statistics,
    build_spec,
    encoder_sizes,
    position_table,
    recognise_positions,
    strip_prefixes,
)
from ijepa.models.encoder import Encoder
from ijepa.models.pretrained import Spec
from ijepa.models.protocol import PatchEncoder
from ijepa.models.timm_vit import TIMM_ARGUMENTS
from ijepa.util.files import write_pickle, write_safetensors

FORM = "a timm VisionTransformer"
HEAD, CUSTOM_HEAD, TRAINED_HEAD = "head.", "ijepa_head.", "ijepa_classifier."
"""Name prefixes of classifiers; the second is for files of users' encoders, which may contain any names; the third for
`ijepa.interop.heads_file`."""
POSITIONS = "pos_embed"
STATE_DICT_KEYS = ("state_dict_ema", "state_dict", "model_ema", "model")
"""Keys of nested state dicts in checkpoints of timm and others; EMA weights first, as in timm."""
UNKNOWN_ENCODER_NOTE = "it does not say whether it is the target or the context encoder: used for either"
UNSUPPORTED = {
    "cls_token": "a class token",
    "fc_norm.weight": "a norm after pooling (fc_norm) instead of before",
    "norm_pre.weight": "a norm before its blocks",
    "blocks.0.ls1.gamma": "layer scale",
    "blocks.0.attn.q_norm.weight": "query and key norms",
}
"""Features of other timm vision transformers that are not supported."""


def to_timm(encoder: PatchEncoder) -> State:
    """A state dict that a ``VisionTransformer`` with `constructor_arguments` loads strictly."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    return {POSITIONS: position_table(encoder), **state} if isinstance(encoder, Encoder) else state


def constructor_arguments(spec: Spec) -> dict[str, Any]:
    """The arguments of timm's ``VisionTransformer`` (``create_model`` if the encoder is timm's) for this encoder."""
    if spec.kind == "timm":
        sizes = {TIMM_ARGUMENTS[name]: value for name, value in spec.options.items()}
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
    """The encoder's state dict, without classifiers; position embeddings are included only if ``stored``."""
    skipped = (HEAD, TRAINED_HEAD) if stored else (HEAD, TRAINED_HEAD, POSITIONS)
    return {name: tensor for name, tensor in state.items() if not name.startswith(skipped)}


def find_state_dict(contents: dict[str, Any]) -> dict[str, Any] | None:
    """The timm state dict in a loaded file, at top level or nested; None if there is none."""
    for state in (contents, *(contents.get(name) for name in STATE_DICT_KEYS)):
        if isinstance(state, dict) and any(name.endswith("patch_embed.proj.weight") for name in state):
            return state
    return None


def read(state: dict[str, Any], heads: int | None = None, source: str = FORM) -> Weights:
    """An encoder from a state dict.

    Args:
        state: state dict with timm's names.
        heads: number of attention heads; None: as for the published size.
        source: description of the source, for messages.

    Raises:
        ValueError: if the network is not supported.
    """
    tensors = strip_prefixes(state)
    for name, feature in UNSUPPORTED.items():
        if name in tensors:
            raise ValueError(f"this vision transformer has {feature} ({name}), which I-JEPA's does not have")
    if POSITIONS not in tensors:
        raise ValueError(f"{POSITIONS} is missing")
    sizes = encoder_sizes(tensors, heads)
    (mean, std), note = assumed_statistics(sizes["channels"])
    spec = build_spec(recognise_positions(tensors[POSITIONS]), sizes, mean, std)
    stored = spec.positions == "stored"
    skipped = sorted(name for name in tensors if name.startswith((HEAD, TRAINED_HEAD)))
    heads_note = f"it does not store its number of heads: assumed {sizes['heads']}, as published for width {spec.width}"
    notes = [
        *([heads_note] if heads is None else []),
        note,
        UNKNOWN_ENCODER_NOTE,
    ]
    notes += [STORED_NOTE] if stored else []
    notes += [f"left out: {', '.join(skipped)}"] if skipped else []
    encoder = {name: tensor.float() for name, tensor in from_timm(tensors, stored).items()}
    return Weights(source, spec, {None: encoder}, notes=tuple(notes)).check()


def is_timm_name(text: str) -> bool:
    """Whether timm knows a model of this name, with or without the tag of its weights."""
    return timm.is_model(text.removeprefix("timm/"))


def download(name: str) -> Weights:
    """The pretrained weights that timm has under a name; timm caches downloads.

    Raises:
        ValueError: if the network is not supported.
        OSError, RuntimeError and others: whatever timm raises if the weights could not be downloaded.
    """
    model = timm.create_model(name.removeprefix("timm/"), pretrained=True, num_classes=0)
    blocks = getattr(model, "blocks", None)
    if not isinstance(model, timm.models.VisionTransformer) or not blocks:
        raise ValueError(f"timm builds a {type(model).__name__} for it, not a VisionTransformer")
    return read_model(model, dict(model.pretrained_cfg), name)


def read_model(model: nn.Module, pretrained_cfg: dict[str, Any], name: str) -> Weights:
    """The weights of a timm VisionTransformer.

    Args:
        model: the model with its weights.
        pretrained_cfg: timm's description of its weights: mean, std and crop_pct.
        name: its name in timm.

    Raises:
        ValueError: if the network is not supported.
    """
    blocks: Any = model.blocks
    weights = read(model.state_dict(), blocks[0].attn.num_heads, f"timm's {name}")
    # from I-JEPA's checkpoints timm takes the network named encoder, which is the context encoder
    return _with_pretrained_cfg(weights, pretrained_cfg, "context" if "ijepa" in name else None)


def _with_pretrained_cfg(weights: Weights, pretrained_cfg: dict[str, Any], which: Which | None) -> Weights:
    """Adds the normalisation from timm's ``pretrained_cfg``, and which encoder it is."""
    values = {
        key: tuple(pretrained_cfg[key]) for key in ("mean", "std") if isinstance(pretrained_cfg.get(key), list | tuple)
    }
    if len(values) != 2 or {len(value) for value in values.values()} != {weights.spec.channels}:
        return weights
    crop = float(pretrained_cfg.get("crop_pct") or 1.0)
    resolved = [assumed_statistics(weights.spec.channels)[1], *([UNKNOWN_ENCODER_NOTE] if which else [])]
    notes = [note for note in weights.notes if note not in resolved]
    spec = replace(weights.spec, mean=values["mean"], std=values["std"], eval_crop=crop)
    return Weights(weights.form, spec, {which: weights.encoders[None]}, notes=tuple(notes))


def read_hub(config: dict[str, Any], state: dict[str, Any], heads: int | None = None) -> Weights:
    """An encoder from a folder in timm's hub format; ``config`` is its config.json.

    Raises:
        ValueError: if the network is not supported.
    """
    model_args = config.get("model_args")
    heads_in_config = model_args.get("num_heads") if isinstance(model_args, dict) else None
    weights = read(state, heads or heads_in_config, f"a folder of timm's {config.get('architecture')}")
    pretrained_cfg = config.get("pretrained_cfg")
    return _with_pretrained_cfg(weights, pretrained_cfg if isinstance(pretrained_cfg, dict) else {}, None)


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
    head_prefix = CUSTOM_HEAD if spec.kind == "custom" else HEAD
    for name, head in (heads or {}).items():
        prefix = f"{head_prefix}{name}." if len(heads or {}) > 1 else head_prefix
        state |= {prefix + part: tensor.detach().cpu().contiguous() for part, tensor in head.state_dict().items()}
    if path.suffix in (".pt", ".pth", ".bin"):  # these cannot store metadata
        write_pickle(path, state)
        return
    write_safetensors(path, state, {SPEC_KEY: json.dumps({**spec.plain(), "encoder": which}), "format": "pt"})
