"""AdamW with the paper's parameter groups: no weight decay on biases and 1-D parameters."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import AdamW


def adamw(modules: Iterable[nn.Module], lr: float, betas: tuple[float, float], eps: float, fused: bool) -> AdamW:
    """AdamW over the trainable parameters of ``modules``; the first group is decayed, the second is not."""
    parameters = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in parameters if p.ndim > 1 and not name.endswith("bias")]
    kept = [p for name, p in parameters if p.ndim <= 1 or name.endswith("bias")]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


def set_hyperparameters(optimizer: AdamW, lr: float, weight_decay: float) -> None:
    """Puts this step's learning rate into both groups and its weight decay into the first."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.param_groups[0]["weight_decay"] = weight_decay
