"""A safetensors file of an encoder, heads that were trained on its features, and what describes them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ijepa.data.limits import MAX_DEVIATIONS
from ijepa.interop import native, timm
from ijepa.interop.loading import build_encoder
from ijepa.interop.reading import read_safetensors
from ijepa.interop.weights import SPEC_KEY, Which
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.run_folder import RunFolder
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import write_safetensors
from ijepa.util.reading import parse_json

CLASSIFIER, DENSE = "ijepa_classifier", "ijepa_dense"
"""Kinds of heads: metadata keys of their description."""
FILES = {CLASSIFIER: ("classifier*.safetensors",), DENSE: ("depth.safetensors", "segmentation.safetensors")}
"""Names that an evaluation gives to such files, by kind."""
EXAMPLES = {CLASSIFIER: ("classifier", "logistic", "classifier.safetensors"),
            DENSE: ("depth or segmentation head", "depth", "depth.safetensors")}  # fmt: skip
"""By kind: what it is, a task that leaves one, and in which file; for messages."""


class HeadsFile(NamedTuple):
    """What such a file contains.

    Attributes:
        encoder: in eval mode.
        which: encoder of a run it is.
        description: of the heads, as it was written.
        heads: a state dict for each.
    """

    encoder: PretrainedEncoder
    which: Which
    description: dict[str, Any]
    heads: list[dict[str, Tensor]]


def write_heads(
    path: Path, kind: str, encoder: PretrainedEncoder, which: Which, heads: Sequence[nn.Module],
    description: dict[str, Any],
) -> None:  # fmt: skip
    """Writes encoder and heads atomically; the encoder can be loaded from the file alone, too."""
    state = timm.to_timm(encoder.encoder)
    for number, head in enumerate(heads):
        prefix = f"{timm.TRAINED_HEAD}{number}."
        state |= {prefix + name: value.detach().cpu() for name, value in head.state_dict().items()}
    metadata = {
        SPEC_KEY: json.dumps({**encoder.spec.plain(), "encoder": which}), kind: json.dumps(description), "format": "pt",
    }  # fmt: skip
    write_safetensors(path, {name: tensor.contiguous() for name, tensor in state.items()}, metadata)


def read_heads(file: Path, kind: str) -> HeadsFile:
    """Reads such a file.

    Raises:
        UserError: if it holds no such heads, or its encoder does not match its description.
        ValueError, KeyError, TypeError, AttributeError: if it was edited by hand, or is damaged.
    """
    metadata, state = read_safetensors(file)
    if kind not in metadata:
        thing, _, name = EXAMPLES[kind]
        raise ValueError(f"holds no {thing}; give a {name}")
    which = native.read_description(metadata)["encoder"]
    weights = native.read_export(metadata, state, file)
    try:
        encoder = build_encoder(weights, file, which, weights.spec.positions)
    except ConfigError as error:
        raise UserError(f"{file}: {error.problem}") from None
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith(timm.TRAINED_HEAD):
            number, _, part = name.removeprefix(timm.TRAINED_HEAD).partition(".")
            states.setdefault(int(number), {})[part] = value
    return HeadsFile(encoder, which, parse_json(metadata[kind]), [states[number] for number in sorted(states)])


def stored_deviations(description: dict[str, Any]) -> float:
    """``max_deviations`` of heads; older files have none. Raises ValueError unless it is a positive number."""
    value = description.get("max_deviations", MAX_DEVIATIONS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError("max_deviations should be a positive number")
    return float(value)


def kind_of(file: Path) -> str | None:
    """The kind of heads in a file; None: it holds none."""
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError):
        return None
    return next((kind for kind in FILES if kind in metadata), None)


def find_heads(path: str | Path, kinds: Sequence[str]) -> Path:
    """The file that `read_heads` reads: ``path``, or the one in this folder or in the evaluations of this run.

    Raises:
        UserError: if there is none, or more than one.
    """
    file = Path(path).expanduser()
    patterns = [pattern for kind in kinds for pattern in FILES[kind]]
    if file.is_dir():
        found = sorted(each for pattern in patterns for each in file.glob(pattern))
        found = found or sorted(
            each for pattern in patterns for each in RunFolder(file).evaluations.glob(f"*/{pattern}")
        )
        if len(found) > 1:
            names = [str(each.relative_to(file)) for each in found]
            raise UserError(f"{file}: holds {', '.join(names)}; give one of these files")
        file = found[0] if found else file / patterns[0].replace("*", "")
    if not file.is_file():
        leaves = " and ".join(f"task={EXAMPLES[kind][1]} leaves a {EXAMPLES[kind][2]}" for kind in kinds)
        raise UserError(f"{file}: no such file; python evaluate.py checkpoint=RUN_DIR {leaves} in its output")
    return file
