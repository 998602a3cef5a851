"""AdamW with the reference implementation's parameter groups: no weight decay on biases and 1-D parameters."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW

Named = tuple[str, nn.Parameter]


def groups(named: Iterable[Named]) -> tuple[list[Named], list[Named]]:
    """The trainable parameters among ``named``: those with weight decay, and those without."""
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    decayed = [(name, p) for name, p in trained if p.ndim > 1 and not name.endswith("bias")]
    undecayed = [(name, p) for name, p in trained if p.ndim <= 1 or name.endswith("bias")]
    return decayed, undecayed


def adamw(named: Iterable[Named], lr: float, betas: tuple[float, float], eps: float, fused: bool) -> AdamW:
    """AdamW on the two parameter groups of `groups`."""
    decayed, undecayed = ([parameter for _, parameter in group] for group in groups(named))
    arguments: list[dict[str, Any]] = [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]
    return AdamW(arguments, lr=lr, betas=betas, eps=eps, fused=fused)


def set_hyperparameters(optimizer: AdamW, lr: float, weight_decay: float) -> None:
    """Sets the learning rate of both groups, and the weight decay of the first."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.param_groups[0]["weight_decay"] = weight_decay


def rekey(state: dict[str, Any], keys: dict[Any, Any]) -> dict[str, Any]:
    """An optimiser's state dict with other keys for its parameters: names instead of indices, or the reverse.

    Args:
        state: state dict of any optimiser.
        keys: maps each parameter's key to its new key.
    """
    renamed = [{**group, "params": [keys[key] for key in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {keys[key]: value for key, value in state["state"].items()}, "param_groups": renamed}
