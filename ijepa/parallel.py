"""Activation checkpointing, then compilation, then sharding: always in this order."""

from functools import partial

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from ijepa.models.jepa import JEPA


def prepare(jepa: JEPA, checkpointing: bool, compiled: bool, mesh: DeviceMesh | None) -> None:
    """Changes how the blocks of ``jepa`` run, in place; names of parameters stay as they are.

    Args:
        jepa: the networks.
        checkpointing: recompute the trained blocks' activations in the backward pass.
        compiled: compile each block; lengths that change from step to step settle after two steps.
        mesh: shard every parameter over this mesh (FSDP2).
    """
    trained = [*jepa.context_encoder.blocks, *jepa.predictor.blocks]
    if checkpointing:
        for block in trained:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if compiled:
        for block in [*trained, *jepa.target_encoder.blocks]:
            block.compile()
    if mesh is not None:
        # The momentum update works shard by shard only where every network, the frozen one too, reshards after forward.
        for network in (jepa.context_encoder, jepa.predictor, jepa.target_encoder):
            for block in network.blocks:
                fully_shard(block, mesh=mesh, reshard_after_forward=True)
            fully_shard(network, mesh=mesh, reshard_after_forward=True)


def full_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict with whole tensors, on the CPU; every rank must call it."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
        for name, tensor in network.state_dict().items()
    }
