"""Steps whose loss or gradients are not finite: skipped, and counted, on the device."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor


class NonFiniteSteps:
    """Decides whether a step is skipped, the same on all ranks, without the CPU waiting for the device.

    A skipped step leaves weights, optimiser state, EMA and target statistics as they are; schedules and the order of
    images continue.

    Attributes:
        last: bool [], whether the last step was skipped.
        total, in_a_row: int64 [], how many steps were skipped; in_a_row: up to the last step.
    """

    def __init__(self) -> None:
        self.last = torch.zeros((), dtype=torch.bool)
        self.total, self.in_a_row = torch.zeros(2, dtype=torch.long)
        self._losses: list[Tensor] = []

    def note(self, loss: Tensor) -> None:
        """Takes in the loss [] of one micro-batch of the step in progress."""
        self._losses.append(loss.detach().float())

    def decide(self, gradients: Iterable[Tensor]) -> Tensor:
        """Sets `last` from the noted losses and the step's gradients; with several ranks, all must call it.

        Gradients so large that their norm overflows count as not finite.
        """
        local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
        norms = torch._foreach_norm(local) if local else []
        measured = torch.stack([*self._losses, *(norm.float() for norm in norms)])
        self._losses.clear()
        skip = (~measured.isfinite().all()).int()
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            distributed.all_reduce(skip, distributed.ReduceOp.MAX)
        self.last = skip.bool()
        self.total = self.total.to(skip.device) + skip
        self.in_a_row = (self.in_a_row.to(skip.device) + 1) * skip
        return self.last

    def state(self) -> dict[str, int]:
        """For checkpoints."""
        return {"total": int(self.total), "in_a_row": int(self.in_a_row)}

    def load(self, state: dict[str, Any]) -> None:
        """Restores `state`."""
        self.total, self.in_a_row = (torch.tensor(state[name]) for name in ("total", "in_a_row"))
