"""Folders of transformers' IJepaModel: config.json, model.safetensors and, where one fits, an image processor.

Written and read without transformers, in the layout that all of its versions load.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ijepa.interop.weights import (
    KEPT,
    SPEC_KEY,
    State,
    Weights,
    bare,
    encoder_sizes,
    placed_or_stored,
    spec_of,
    statistics,
    table_of,
)
from ijepa.models.encoder import Encoder
from ijepa.models.positions import Grid
from ijepa.models.pretrained import Spec
from ijepa.run_folder import RunFolder
from ijepa.util.files import write_json, write_safetensors

FORM = "a folder of transformers' IJepaModel"
CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
INDEX, SHARDS = "model.safetensors.index.json", "model-*-of-*.safetensors"
EPS = 1e-6
"""Epsilon of layer norms; IJepaConfig's default differs."""
POSITIONS = "embeddings.position_embeddings"
OUTER = {
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "norm.": "layernorm.",
}
INNER = {
    "norm1.": "layernorm_before.",
    "attn.proj.": "attention.output.dense.",
    "norm2.": "layernorm_after.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
QUERIES = ("query", "key", "value")
RENAMED = {
    "layers.": "encoder.layer.",
    "attention.q_proj.": "attention.attention.query.",
    "attention.k_proj.": "attention.attention.key.",
    "attention.v_proj.": "attention.attention.value.",
    "attention.o_proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
"""In-memory names of newer versions, which some files contain, and the names in files that transformers writes."""
LEFT_OUT = ("classifier.", "pooler.", "embeddings.mask_token")
PICTURES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes for transformers' image processors, by number of channels."""


def is_folder(path: Path) -> bool:
    """Whether transformers, or timm, wrote this folder."""
    return (path / CONFIG).is_file() and not RunFolder(path).checkpoints.path.exists()


def described(path: Path) -> dict[str, Any]:
    """The contents of config.json in a folder; raises ValueError if it is not a configuration."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ValueError(f"{CONFIG} cannot be read ({fault})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} does not describe a network")
    return config


def read(path: Path) -> Weights:
    """The encoder in a folder of transformers.

    Raises:
        ValueError: if it does not contain a complete I-JEPA encoder.
    """
    config = described(path)
    kind = config.get("model_type")
    if kind != "ijepa":
        raise ValueError(f"{CONFIG} does not describe an I-JEPA model: expected model_type ijepa, found {kind}")
    wanted = {"layer_norm_eps": (EPS, 1e-12), "qkv_bias": (True, True), "hidden_act": ("gelu", "gelu")}
    for name, (value, default) in wanted.items():
        held = config.get(name, default)
        if held != value:
            raise ValueError(f"{CONFIG}: expected {name} {value}, found {held}")
    tensors = _tensors(path)
    position = tensors.pop(POSITIONS, None)
    if position is None:
        raise ValueError(f"{POSITIONS} is missing")
    left = sorted(name for name in tensors if name.startswith(LEFT_OUT))
    state = {name: tensor.float() for name, tensor in from_transformers(tensors).items()}
    sizes = encoder_sizes(state, config.get("num_attention_heads", 12))
    found = placed_or_stored(position, _grid(config, sizes["patch_size"]))
    if found.positions == "stored":
        state["pos_embed"] = position.float()
    own = config.get(SPEC_KEY)
    if isinstance(own, dict):  # written here
        try:
            which = own.pop("encoder")
            return Weights(FORM, Spec.of(own), {which: state}).check()
        except (KeyError, TypeError, AttributeError) as fault:
            raise ValueError(f"{SPEC_KEY} in {CONFIG} does not describe an encoder ({fault})") from None
    (mean, std), note = statistics(sizes["channels"])
    notes = [note, "it does not say whether it is the target or the context encoder (the published ones are context "
             "encoders): taken for either"]  # fmt: skip
    notes += [KEPT] if found.positions == "stored" else []
    notes += [f"left out: {', '.join(left)}"] if left else []
    return Weights(FORM, spec_of(found, sizes, mean, std), {None: state}, notes=tuple(notes)).check()


def _grid(config: dict[str, Any], patch_size: int) -> Grid | None:
    """Rows and columns of patches, if the configuration has them."""
    size = config.get("image_size")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        return None
    return sides[0] // patch_size, sides[1] // patch_size


def _tensors(path: Path) -> State:
    """The tensors of model.safetensors, or of all files in its index."""
    index = path / INDEX
    if not (path / WEIGHTS).is_file() and not index.is_file():
        raise ValueError(f"it has no {WEIGHTS}; save it with transformers' save_pretrained")
    try:
        whole = (path / WEIGHTS).is_file()  # which transformers prefers, too
        names = {WEIGHTS} if whole else set(json.loads(index.read_text())["weight_map"].values())
        tensors: State = {}
        for name in sorted(names):
            if Path(name).name != name:
                raise ValueError(f"{index.name} names {name}, which is missing")
            with safe_open(path / name, framework="pt") as opened:
                tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"{WEIGHTS} cannot be read ({fault})") from None
    return {name.removeprefix("ijepa."): tensor for name, tensor in bare(tensors).items()}


def write(folder: Path, encoder: Encoder, spec: Spec, which: str) -> str | None:
    """Writes an encoder for ``IJepaModel.from_pretrained``, atomically.

    Args:
        folder: created if missing.
        encoder: the weights.
        spec: description of the encoder.
        which: which encoder it is: ``target`` or ``context``.

    Returns:
        Why there is no image processor, or None if there is one.
    """
    config = {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "intermediate_size": round(spec.width * spec.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": EPS,
        "image_size": spec.image_size[0] if spec.image_size[0] == spec.image_size[1] else list(spec.image_size),
        "patch_size": spec.patch_size,
        "num_channels": spec.channels,
        "qkv_bias": True,
        "dtype": "float32",
        SPEC_KEY: {**spec.plain(), "encoder": which},
    }
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        write_safetensors(made / WEIGHTS, to_transformers(encoder), {"format": "pt"})
        if spec.channels in PICTURES:
            write_json(made / PROCESSOR, processor(spec))
        write_json(made / CONFIG, config)
        _replace(made, folder)
    if spec.channels in PICTURES:
        return None
    return f"transformers has no image processor for {spec.channels} channels; normalise images yourself"


def _replace(made: Path, folder: Path) -> None:
    """Moves the files of ``made`` to ``folder``; config.json is removed first and written last, for consistency."""
    folder.mkdir(exist_ok=True)
    for old in (folder / CONFIG, folder / PROCESSOR, folder / INDEX, *folder.glob(SHARDS)):
        old.unlink(missing_ok=True)
    for name in (WEIGHTS, PROCESSOR, CONFIG):
        if (made / name).exists():
            (made / name).replace(folder / name)


def processor(spec: Spec) -> dict[str, Any]:
    """The image processor: the evaluation transform here, except that it stretches images to the size."""
    height, width = spec.image_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "do_convert_rgb": spec.channels == 3,
    }


def to_transformers(encoder: Encoder) -> State:
    """A state dict of ``IJepaModel``, in the layout of its files."""
    state = {POSITIONS: table_of(encoder)}
    for name, tensor in encoder.state_dict().items():
        if name == "pos_embed":  # stored ones, which stand there already
            continue
        tensor = tensor.detach().cpu()
        outer = next((theirs + name.removeprefix(ours) for ours, theirs in OUTER.items() if name.startswith(ours)), "")
        if outer:
            state[outer] = tensor.contiguous()
            continue
        _, number, rest = name.split(".", 2)
        layer = f"encoder.layer.{number}."
        if rest.startswith("attn.qkv."):
            part = rest.removeprefix("attn.qkv.")
            for query, piece in zip(QUERIES, tensor.chunk(3), strict=True):
                state[f"{layer}attention.attention.{query}.{part}"] = piece.contiguous().clone()
        else:
            ours, theirs = next(pair for pair in INNER.items() if rest.startswith(pair[0]))
            state[layer + theirs + rest.removeprefix(ours)] = tensor.contiguous()
    return state


def from_transformers(tensors: State) -> State:
    """The encoder's state dict, from either layout; raises ValueError for unknown parameters."""
    state: State = {}
    pieces: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(LEFT_OUT):
            continue
        layout = name
        if name.startswith("layers."):
            for theirs, older in RENAMED.items():
                layout = layout.replace(theirs, older, 1) if theirs in layout else layout
        query = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", layout)
        if query:
            number, which, part = query.groups()
            pieces.setdefault(f"blocks.{number}.attn.qkv.{part}", {})[which] = tensor
            continue
        state[_ours(layout, name)] = tensor
    for name, found in pieces.items():
        absent = [which for which in QUERIES if which not in found]
        if absent:
            raise ValueError(f"the {absent[0]} of {name} is missing")
        state[name] = torch.cat([found[which] for which in QUERIES])
    return state


def _ours(layout: str, name: str) -> str:
    for ours, theirs in OUTER.items():
        if layout.startswith(theirs):
            return ours + layout.removeprefix(theirs)
    block = re.match(r"encoder\.layer\.(\d+)\.", layout)
    rest = layout[block.end() :] if block else ""
    for ours, theirs in INNER.items():
        if rest.startswith(theirs):
            assert block is not None
            return f"blocks.{block.group(1)}.{ours}{rest.removeprefix(theirs)}"
    raise ValueError(f"it has {name}, which I-JEPA's encoder does not have")
