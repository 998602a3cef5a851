"""timm's VisionTransformer: the names are this project's own; timm keeps the positions as a parameter."""

import json
from pathlib import Path

from torch import nn

from ijepa.files import write_safetensors
from ijepa.interop.meta import State
from ijepa.models.encoder import Encoder
from ijepa.models.pretrained import Spec

SPEC_KEY = "ijepa_encoder"
"""Under which the metadata of a file say how to rebuild the encoder and to normalise its images."""
HEAD = "head."


def to_timm(encoder: Encoder) -> State:
    """A state dict that ``VisionTransformer(class_token=False, global_pool="avg", num_classes=0, fc_norm=False)`` loads
    strictly.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    table = encoder.positions(encoder.grid, next(encoder.parameters()).device)
    return {"pos_embed": table[None].detach().cpu().contiguous(), **state}


def from_timm(state: State) -> State:
    """The encoder's state dict: without the positions, which it computes, and without classifiers."""
    return {name: tensor for name, tensor in state.items() if name != "pos_embed" and not name.startswith(HEAD)}


def write(path: Path, encoder: Encoder, spec: Spec, which: str, heads: dict[str, nn.Module] | None = None) -> None:
    """Writes an encoder under timm's names, with what is needed to rebuild and normalise in the metadata.

    Args:
        path: of the file.
        encoder: the weights.
        spec: its description.
        which: encoder it is: ``target`` or ``context``.
        heads: linear classifiers by label set: ``head.weight`` and ``head.bias``, as in timm, where there is one, else
            ``head.NAME.weight``.
    """
    state = to_timm(encoder)
    for name, head in (heads or {}).items():
        prefix = f"{HEAD}{name}." if len(heads or {}) > 1 else HEAD
        state |= {prefix + part: tensor.detach().cpu().contiguous() for part, tensor in head.state_dict().items()}
    write_safetensors(path, state, {SPEC_KEY: json.dumps({**spec.plain(), "encoder": which}), "format": "pt"})
