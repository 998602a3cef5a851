"""Evaluation on several devices: one process per device, each with a part of the images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from ijepa.util.errors import UserError

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Ranks:
    """The processes of an evaluation; all of them must call every method that communicates.

    Attributes:
        rank: the global rank of this process; rank 0 prints and writes files.
        world_size: number of processes; if there are several, the process group supports CPU and device tensors.
    """

    rank: int = 0
    world_size: int = 1

    def share(self, total: int) -> range:
        """The contiguous part of range(total) for this process."""
        return range(total * self.rank // self.world_size, total * (self.rank + 1) // self.world_size)

    def gathered(self, part: Tensor) -> Tensor:
        """All processes' tensors of the same shape [n, ...], concatenated: [n * world_size, ...]; no gradients."""
        if self.world_size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world_size)]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def joined(self, part: Tensor) -> Tensor:
        """All processes' CPU tensors [n, ...], concatenated; n may differ, and where n = 0 the shape is arbitrary."""
        if self.world_size == 1:
            return part
        if part.dtype == torch.bool:
            return self.joined(part.byte()).bool()
        shapes: list[tuple[int, ...]] = [()] * self.world_size
        distributed.all_gather_object(shapes, tuple(part.shape))
        parts = []
        for rank, shape in enumerate(shapes):
            tensor = part.contiguous() if rank == self.rank else torch.empty(shape, dtype=part.dtype)
            if tensor.numel():
                distributed.broadcast(tensor, rank)
                parts.append(tensor)
        return torch.cat(parts) if parts else part

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages gradients over all processes."""
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        means = (flat / self.world_size).split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def raise_any(self, error: Exception | None) -> None:
        """Raises ``error`` if it is one; else UserError if another process has one, so that none waits for another."""
        if self.world_size > 1:
            messages: list[str | None] = [None] * self.world_size
            distributed.all_gather_object(messages, None if error is None else str(error))
            others = [message for message in messages if message is not None]
            if error is None and others:
                raise UserError(others[0])
        if error is not None:
            raise error

    def broadcast(self, value: ValueT) -> ValueT:
        """The value of rank 0, in all processes."""
        if self.world_size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]


def wait_for_all() -> None:
    """A barrier over all processes, if there are several."""
    if distributed.is_initialized():
        distributed.barrier()


SINGLE_PROCESS = Ranks()
"""One process."""
