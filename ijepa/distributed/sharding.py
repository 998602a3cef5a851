"""bf16 compute, activation checkpointing, compilation and sharding, in this order; reductions over ranks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ijepa.models.protocol import blocks_of

_aten = torch.ops.aten
MATMULS = (_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default,
            _aten.convolution.default, _aten._scaled_dot_product_flash_attention.default,
            _aten._scaled_dot_product_efficient_attention.default, _aten._scaled_dot_product_cudnn_attention.default,
            _aten._scaled_dot_product_flash_attention_for_cpu.default)  # fmt: skip
"""What costs most to recompute."""


def prepare(
    networks: Sequence[nn.Module], bf16: bool, checkpointing: bool | Literal["selective"],
    compiled: bool | Literal["networks"], mesh: DeviceMesh | None,
) -> None:  # fmt: skip
    """Changes how ``networks`` are executed, in place; parameters stay float32 and keep their names.

    Args:
        networks: transformer blocks, if any, are in their attribute ``blocks``.
        bf16: compute with bf16 copies of the weights and pass bf16 between modules (``bf16-true``); gradients of the
            float32 weights are float32.
        checkpointing: activation checkpointing of blocks that have trainable parameters; ``selective``: what `MATMULS`
            compute is kept, the rest is recomputed.
        compiled: compile each block; for varying lengths, recompilation stops after two steps. ``networks``: compile
            each network as a whole.
        mesh: shard all parameters over this mesh (FSDP2); None: do not shard.
    """
    if bf16 and mesh is None:  # FSDP2 casts the weights itself when it gathers them
        for network in networks:
            for part in _parts(network):
                _compute_in_bf16(part)
    blocks = [block for network in networks for block in _blocks_or_network(network)]
    if checkpointing:
        options: dict[str, Any] = {"context_fn": _keeping_matmuls} if checkpointing == "selective" else {}
        for block in blocks:
            if any(parameter.requires_grad for parameter in block.parameters()):
                block.forward = partial(checkpoint, block.forward, use_reentrant=False, **options)  # type: ignore[method-assign]
    if compiled:
        for part in networks if compiled == "networks" else blocks:
            part.compile()
    if mesh is not None:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
        # The EMA is updated shard by shard, so every network, including the frozen one, must reshard after forward.
        # No set_modules_to_forward_prefetch: some passes end before the last block, and what was gathered for the next
        # one would still be used after an update of its weights.
        for network in networks:
            for block in blocks_of(network):
                fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
            fully_shard(network, mesh=mesh, reshard_after_forward=True, mp_policy=policy)


def _keeping_matmuls() -> Any:
    return create_selective_checkpoint_contexts(list(MATMULS))


def full_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The unsharded state dict of ``network``, on the CPU; all ranks must call this."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
        for name, tensor in network.state_dict().items()
    }


def global_norm(tensors: Iterable[Tensor]) -> float:
    """The L2 norm of all tensors as one vector; if they are sharded, all ranks must call this."""
    sharded, squares = False, []
    for tensor in tensors:
        sharded = sharded or isinstance(tensor, DTensor)
        part = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        squares.append(part.detach().double().square().sum())
    if not squares:
        return 0.0
    squared_norm = torch.stack(squares).sum()
    if sharded:
        distributed.all_reduce(squared_norm)
    return math.sqrt(squared_norm.item())


def relative_distance(tensors: Iterable[Tensor], references: Iterable[Tensor]) -> float:
    """The L2 distance between ``tensors`` and ``references``, divided by the latter's norm (0 if that is 0).

    See `global_norm`.
    """
    references = [tensor.detach() for tensor in references]
    reference_norm = global_norm(references)
    difference_norm = global_norm(
        tensor.detach() - reference for tensor, reference in zip(tensors, references, strict=True)
    )
    return difference_norm / reference_norm if reference_norm else 0.0


def max_over_ranks(number: int, device: torch.device) -> int:
    """The maximum of ``number`` over all ranks; all ranks must call this."""
    if not distributed.is_initialized():
        return number
    tensor = torch.tensor(number, device=device)
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor.item())


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks, with gradients.

    Its gradients are summed over ranks, and later averaged by DDP or FSDP; the result is the gradient that one process
    with the whole batch would compute.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return tensor
    summed: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


class _SumOverRanks(torch.autograd.Function):
    """torch's own, in `torch.distributed.nn`, is deprecated and warns on every rank."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # type: ignore[override]
        summed = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _SumOverRanks.forward(None, gradient)


def _blocks_or_network(network: nn.Module) -> list[nn.Module]:
    """The network's blocks, or [network] if it has none."""
    return blocks_of(network) or [network]


def _parts(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks and the other child modules; a network without blocks as a whole."""
    if not blocks_of(network):
        yield network
        return
    for child in network.children():
        yield from child if isinstance(child, nn.ModuleList) else [child]


class _OriginalForward(nn.Module):
    """Calls the original forward of ``part``, whose own forward is replaced."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.run = part.forward

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.run(*arguments, **options)


def _compute_in_bf16(part: nn.Module) -> None:
    body = _OriginalForward(part)

    def forward(*arguments: Any, **options: Any) -> Any:
        copies = {f"part.{name}": parameter.to(torch.bfloat16) for name, parameter in part.named_parameters()}
        return functional_call(
            body, copies, tuple(map(_to_bf16, arguments)), {k: _to_bf16(v) for k, v in options.items()}
        )

    part.forward = forward  # type: ignore[method-assign]


def _to_bf16(value: Any) -> Any:
    return value.to(torch.bfloat16) if isinstance(value, Tensor) and value.is_floating_point() else value
