"""bf16 copies, activation checkpointing, then compilation, then sharding: always in this order."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.nn.functional import all_reduce
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ijepa.models.protocol import blocks_of


def prepare(
    networks: Sequence[nn.Module], bf16: bool, checkpointing: bool, compiled: bool, mesh: DeviceMesh | None
) -> None:
    """Changes how the parts of ``networks`` run, in place; parameters stay float32, and their names as they are.

    Args:
        networks: each with its transformer blocks, if any, in ``blocks``; frozen where no parameter takes gradients.
        bf16: compute with bf16 copies of the weights and pass bf16 between modules (``bf16-true``); gradients of the
            float32 weights are float32.
        checkpointing: activation checkpointing of the trained blocks.
        compiled: compile each block; for varying lengths, recompilation stops after two steps.
        mesh: shard every parameter over this mesh (FSDP2).
    """
    if bf16 and mesh is None:  # FSDP2 makes the copies itself when it gathers the weights
        for network in networks:
            for part in _parts(network):
                _compute_in_bf16(part)
    blocks = [block for network in networks for block in _units(network)]
    if checkpointing:
        for block in blocks:
            if any(parameter.requires_grad for parameter in block.parameters()):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if compiled:
        for block in blocks:
            block.compile()
    if mesh is not None:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
        # A moving average works shard by shard only where every network, the frozen one too, reshards after forward.
        for network in networks:
            for block in blocks_of(network):
                fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
            fully_shard(network, mesh=mesh, reshard_after_forward=True, mp_policy=policy)


def full_state(network: nn.Module) -> dict[str, Tensor]:
    """The unsharded state dict, on the CPU; every rank must call this."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
        for name, tensor in network.state_dict().items()
    }


def norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of all tensors as one vector; if they are sharded, every rank must call this."""
    sharded, squares = False, []
    for tensor in tensors:
        sharded = sharded or isinstance(tensor, DTensor)
        part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        squares.append(part.detach().double().square().sum())
    if not squares:
        return 0.0
    whole = torch.stack(squares).sum()
    if sharded:
        distributed.all_reduce(whole)
    return math.sqrt(whole.item())


def distance(ones: Iterable[Tensor], others: Iterable[Tensor]) -> float:
    """The L2 distance between ``ones`` and ``others``, divided by the norm of ``others``; see `norm`."""
    others = [tensor.detach() for tensor in others]
    whole = norm(others)
    away = norm(one.detach() - other for one, other in zip(ones, others, strict=True))
    return away / whole if whole else 0.0


def greatest(number: int, device: torch.device) -> int:
    """The maximum over all processes; every rank must call this."""
    if not distributed.is_initialized():
        return number
    together = torch.tensor(number, device=device)
    distributed.all_reduce(together, distributed.ReduceOp.MAX)
    return int(together.item())


def total(sums: Tensor) -> Tensor:
    """The sum over all processes, with gradients.

    Its gradients are summed over processes and averaged later by DDP or FSDP: the result is the gradient of a single
    process with the whole batch.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return sums
    summed: Tensor = all_reduce(sums)  # type: ignore[no-untyped-call]
    return summed


def _units(network: nn.Module) -> list[nn.Module]:
    """The blocks, or a network without any as a whole."""
    return blocks_of(network) or [network]


def _parts(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks, and what stands before and after them; a network without blocks as a whole."""
    if not blocks_of(network):
        yield network
        return
    for child in network.children():
        yield from child if isinstance(child, nn.ModuleList) else [child]


class _Body(nn.Module):
    """A module with its original forward, before it was replaced."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.run = part.forward

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.run(*arguments, **options)


def _compute_in_bf16(part: nn.Module) -> None:
    body = _Body(part)

    def forward(*arguments: Any, **options: Any) -> Any:
        copies = {f"part.{name}": parameter.to(torch.bfloat16) for name, parameter in part.named_parameters()}
        return functional_call(body, copies, tuple(map(_bf16, arguments)), {k: _bf16(v) for k, v in options.items()})

    part.forward = forward  # type: ignore[method-assign]


def _bf16(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.is_floating_point() else value
