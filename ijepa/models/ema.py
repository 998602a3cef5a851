"""The exponential moving average (EMA) of a network's weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def update(average: nn.Module, trained: nn.Module, momentum: float, skipped: Tensor | None = None) -> None:
    """Average <- momentum * average + (1 - momentum) * trained, for all parameters at once.

    ``skipped``: bool [], leaves ``average`` as it is if true; on a GPU, the CPU does not wait for it.
    """
    averages, parameters = tuple(average.parameters()), tuple(trained.parameters())
    if skipped is None or skipped.device.type == "cpu":
        if not skipped:
            torch._foreach_lerp_(averages, parameters, 1.0 - momentum)
        return
    rate = torch.where(skipped, 0.0, 1.0 - momentum)
    for one, other in zip(averages, parameters, strict=True):
        one.lerp_(other, rate)
