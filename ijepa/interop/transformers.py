"""Folders of transformers' IJepaModel: config.json, model.safetensors and, if transformers has one, an image processor.

They are read and written without transformers, in the layout that all its versions load.
"""

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ijepa.interop.weights import (
    SPEC_KEY,
    STORED_NOTE,
    State,
    Weights,
    assumed_statistics,
    build_spec,
    described_vit,
    encoder_sizes,
    position_table,
    recognise_positions,
    strip_prefixes,
)
from ijepa.models.encoder import Encoder
from ijepa.models.positions import Grid
from ijepa.models.pretrained import Spec
from ijepa.run_folder import RunFolder
from ijepa.util.files import write_json, write_safetensors
from ijepa.util.reading import read_json

FORM = "a folder of transformers' IJepaModel"
CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
INDEX, SHARDS = "model.safetensors.index.json", "model-*-of-*.safetensors"
EPS = 1e-6
"""Epsilon of layer norms; IJepaConfig's default differs."""
POSITIONS = "embeddings.position_embeddings"
ENCODER_NAMES = {
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "norm.": "layernorm.",
}
BLOCK_NAMES = {
    "norm1.": "layernorm_before.",
    "attn.proj.": "attention.output.dense.",
    "norm2.": "layernorm_after.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
QUERIES = ("query", "key", "value")
NEW_TO_OLD = {
    "layers.": "encoder.layer.",
    "attention.q_proj.": "attention.attention.query.",
    "attention.k_proj.": "attention.attention.key.",
    "attention.v_proj.": "attention.attention.value.",
    "attention.o_proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
"""Parameter names of newer versions, which some files contain, and the names that transformers writes to files."""
LEFT_OUT = ("classifier.", "pooler.", "embeddings.mask_token")
PROCESSOR_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes for transformers' image processors, by number of channels."""


def is_folder(path: Path) -> bool:
    """Whether transformers or timm wrote this folder."""
    return (path / CONFIG).is_file() and not RunFolder(path).checkpoints.path.exists()


def read_config(path: Path) -> dict[str, Any]:
    """The contents of config.json in a folder; raises ValueError if it is not a configuration."""
    try:
        config = read_json(path / CONFIG)
    except (OSError, ValueError) as fault:
        raise ValueError(f"{CONFIG} cannot be read ({fault})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} does not describe a network")
    return config


def read(path: Path) -> Weights:
    """The encoder in a folder of transformers.

    Raises:
        ValueError: if the folder does not contain a complete I-JEPA encoder.
    """
    config = read_config(path)
    kind = config.get("model_type")
    if kind != "ijepa":
        raise ValueError(f"{CONFIG} does not describe an I-JEPA model: expected model_type ijepa, found {kind}")
    expected = {"layer_norm_eps": (EPS, 1e-12), "qkv_bias": (True, True), "hidden_act": ("gelu", "gelu")}
    for name, (value, default) in expected.items():
        value_in_config = config.get(name, default)
        if value_in_config != value:
            raise ValueError(f"{CONFIG}: expected {name} {value}, found {value_in_config}")
    tensors = _read_tensors(path)
    position_embeddings = tensors.pop(POSITIONS, None)
    if position_embeddings is None:
        raise ValueError(f"{POSITIONS} is missing")
    skipped = sorted(name for name in tensors if name.startswith(LEFT_OUT))
    state = {name: tensor.float() for name, tensor in from_transformers(tensors).items()}
    sizes = encoder_sizes(state, config.get("num_attention_heads", 12))
    layout = recognise_positions(position_embeddings, _grid(config, sizes["patch_size"]))
    if layout.positions == "stored":
        state["pos_embed"] = position_embeddings.float()
    description = config.get(SPEC_KEY)
    if isinstance(description, dict):  # written by `write`
        try:
            which = description.pop("encoder")
            return Weights(FORM, described_vit(description), {which: state}).check()
        except (KeyError, TypeError, AttributeError) as fault:
            raise ValueError(f"{SPEC_KEY} in {CONFIG} does not describe an encoder ({fault})") from None
    (mean, std), note = assumed_statistics(sizes["channels"])
    notes = [note, "it does not say whether it is the target or the context encoder (the published ones are context "
             "encoders): used for either"]  # fmt: skip
    notes += [STORED_NOTE] if layout.positions == "stored" else []
    notes += [f"left out: {', '.join(skipped)}"] if skipped else []
    return Weights(FORM, build_spec(layout, sizes, mean, std), {None: state}, notes=tuple(notes)).check()


def _grid(config: dict[str, Any], patch_size: int) -> Grid | None:
    """Rows and columns of patches; None if the configuration has no valid image size."""
    size = config.get("image_size")
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        return None
    return sides[0] // patch_size, sides[1] // patch_size


def _read_tensors(path: Path) -> State:
    """The tensors of model.safetensors, or of all files in its index."""
    index = path / INDEX
    if not (path / WEIGHTS).is_file() and not index.is_file():
        raise ValueError(f"it has no {WEIGHTS}; save it with transformers' save_pretrained")
    try:
        is_single_file = (path / WEIGHTS).is_file()  # transformers prefers it, too
        names = {WEIGHTS} if is_single_file else set(read_json(index)["weight_map"].values())
        tensors: State = {}
        for name in sorted(names):
            if Path(name).name != name:
                raise ValueError(f"{index.name} names {name}, which is missing")
            with safe_open(path / name, framework="pt") as opened:
                tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"{WEIGHTS} cannot be read ({fault})") from None
    return {name.removeprefix("ijepa."): tensor for name, tensor in strip_prefixes(tensors).items()}


class Classes(NamedTuple):
    """A linear classifier of average-pooled patches, and the names of its classes."""

    head: nn.Linear
    names: list[str]


def write(folder: Path, encoder: Encoder, spec: Spec, which: str, classes: Classes | None = None) -> str | None:
    """Writes an encoder for ``IJepaModel.from_pretrained``, atomically.

    Args:
        folder: created if missing.
        encoder: the weights.
        spec: description of the encoder.
        which: which encoder it is: ``target`` or ``context``.
        classes: written with it, for ``IJepaForImageClassification.from_pretrained``.

    Returns:
        The reason why no image processor was written, or None.
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
    state = to_transformers(encoder)
    if classes is not None:
        state = {f"ijepa.{name}": tensor for name, tensor in state.items()}
        state |= {f"classifier.{name}": tensor.detach().cpu() for name, tensor in classes.head.state_dict().items()}
        config["architectures"] = ["IJepaForImageClassification"]
        config["id2label"] = {str(number): name for number, name in enumerate(classes.names)}
        config["label2id"] = {name: number for number, name in enumerate(classes.names)}
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        new_folder = Path(temporary) / folder.name
        write_safetensors(new_folder / WEIGHTS, state, {"format": "pt"})
        if spec.channels in PROCESSOR_MODES:
            write_json(new_folder / PROCESSOR, processor(spec))
        write_json(new_folder / CONFIG, config)
        _replace(new_folder, folder)
    if spec.channels in PROCESSOR_MODES:
        return None
    return f"transformers has no image processor for {spec.channels} channels; normalise images yourself"


def _replace(new_folder: Path, folder: Path) -> None:
    """Moves the files of ``new_folder`` to ``folder``; config.json is removed first and moved last, for consistency."""
    folder.mkdir(exist_ok=True)
    for old in (folder / CONFIG, folder / PROCESSOR, folder / INDEX, *folder.glob(SHARDS)):
        old.unlink(missing_ok=True)
    for name in (WEIGHTS, PROCESSOR, CONFIG):
        if (new_folder / name).exists():
            (new_folder / name).replace(folder / name)


def processor(spec: Spec) -> dict[str, Any]:
    """The image processor's configuration: our evaluation transform, but with images stretched to the size."""
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
    state = {POSITIONS: position_table(encoder)}
    for name, tensor in encoder.state_dict().items():
        if name == "pos_embed":  # stored position embeddings: already in POSITIONS
            continue
        tensor = tensor.detach().cpu()
        pairs = ENCODER_NAMES.items()
        hf_name = next((theirs + name.removeprefix(ours) for ours, theirs in pairs if name.startswith(ours)), "")
        if hf_name:
            state[hf_name] = tensor.contiguous()
            continue
        _, number, rest = name.split(".", 2)
        layer = f"encoder.layer.{number}."
        if rest.startswith("attn.qkv."):
            part = rest.removeprefix("attn.qkv.")
            for query, piece in zip(QUERIES, tensor.chunk(3), strict=True):
                state[f"{layer}attention.attention.{query}.{part}"] = piece.contiguous().clone()
        else:
            our_prefix, hf_prefix = next(pair for pair in BLOCK_NAMES.items() if rest.startswith(pair[0]))
            state[layer + hf_prefix + rest.removeprefix(our_prefix)] = tensor.contiguous()
    return state


def from_transformers(tensors: State) -> State:
    """The encoder's state dict, from either layout; raises ValueError for unknown or missing parameters."""
    state: State = {}
    qkv: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(LEFT_OUT):
            continue
        layout = name
        if name.startswith("layers."):
            for new_part, old_part in NEW_TO_OLD.items():
                layout = layout.replace(new_part, old_part, 1) if new_part in layout else layout
        query = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", layout)
        if query:
            number, which, part = query.groups()
            qkv.setdefault(f"blocks.{number}.attn.qkv.{part}", {})[which] = tensor
            continue
        state[_from_transformers_name(layout, name)] = tensor
    for name, parts in qkv.items():
        missing = [which for which in QUERIES if which not in parts]
        if missing:
            raise ValueError(f"the {missing[0]} of {name} is missing")
        state[name] = torch.cat([parts[which] for which in QUERIES])
    return state


def _from_transformers_name(layout: str, name: str) -> str:
    for our_prefix, hf_prefix in ENCODER_NAMES.items():
        if layout.startswith(hf_prefix):
            return our_prefix + layout.removeprefix(hf_prefix)
    block = re.match(r"encoder\.layer\.(\d+)\.", layout)
    rest = layout[block.end() :] if block else ""
    for our_prefix, hf_prefix in BLOCK_NAMES.items():
        if rest.startswith(hf_prefix):
            assert block is not None
            return f"blocks.{block.group(1)}.{our_prefix}{rest.removeprefix(hf_prefix)}"
    raise ValueError(f"it has {name}, which I-JEPA's encoder does not have")
