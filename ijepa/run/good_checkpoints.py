"""Which checkpoints a run can resume from: those that are complete, and whose weights are finite."""

from pathlib import Path
from typing import Any

import torch

from ijepa.interop import loading
from ijepa.run_folder import CheckpointFolder
from ijepa.util import commands
from ijepa.util.errors import UserError


def better_checkpoint(checkpoint: Path) -> str:
    """What to resume from instead of ``checkpoint``."""
    others = (path for path in reversed(CheckpointFolder(checkpoint.parent).numbered()) if path != checkpoint)
    good = next(filter(is_good, others), None)
    return f"try {commands.override('resume', good)}, the newest good one" if good else "and there is no good one"


def is_good(path: Path) -> bool:
    """Whether the checkpoint is complete and its weights are finite."""
    contents = complete_contents(path)
    return contents is not None and not_finite(contents) is None


def complete_contents(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, memory-mapped; None if it is incomplete, or no checkpoint."""
    try:
        return loading.load_checkpoint(path, mapped=True)
    except UserError:
        return None


def not_finite(contents: dict[str, Any]) -> str | None:
    """The first of the trained weights in a checkpoint that is not finite; None if all are. Buffers may be infinite."""
    weights, states = contents.get("state_dict", {}), contents.get("optimizer_states") or [{}]
    trained = {name for group in states[0].get("param_groups", []) for name in group["params"]}
    tensors = {name: value for name, value in weights.items() if name in trained and isinstance(value, torch.Tensor)}
    return next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
