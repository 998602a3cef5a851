"""Floating-point operations of a training step: two per multiply-add of every matrix product."""

import copy
from typing import Protocol, runtime_checkable

import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ijepa.models.predictor import Predictor
from ijepa.models.protocol import PatchEncoder


@runtime_checkable
class KnowsFlops(Protocol):
    """An encoder that knows its operations, from shapes; those of others are counted by torch."""

    def embedding_flops(self, patches: int) -> float:
        """Operations to embed so many patches."""

    def block_flops(self, patches: int) -> float:
        """Operations of the blocks for so many patches of an image."""


class EncoderFlops:
    """What one image costs in an encoder; every patch is embedded, also those that are masked.

    Args:
        encoder: on any device; it is left as it is.
        image: channels, height and width.
    """

    def __init__(self, encoder: PatchEncoder, image: tuple[int, int, int]) -> None:
        rows, columns = encoder.grid_of(*image[1:])
        self.encoder = encoder
        self.image = image
        self.patches = rows * columns
        self._counted: dict[tuple[int, int, bool], float] = {}
        self._network: nn.Module | None = None

    def forward(self, patches: int, blocks: int = 1) -> float:
        """Operations without a backward pass, of ``blocks`` passes over so many patches each."""
        if isinstance(self.encoder, KnowsFlops):
            return self.encoder.embedding_flops(self.patches) + blocks * self.encoder.block_flops(patches)
        return self._count(patches, blocks, backward=False)

    def step(self, patches: int) -> float:
        """Operations with the backward pass, of one pass over so many patches.

        It costs twice the forward pass, but images have no gradient: the embedding's is only that of its weights.
        """
        if isinstance(self.encoder, KnowsFlops):
            return 2.0 * self.encoder.embedding_flops(self.patches) + 3.0 * self.encoder.block_flops(patches)
        return self._count(patches, 1, backward=True)

    def _count(self, patches: int, blocks: int, backward: bool) -> float:
        key = (patches, blocks, backward)
        if key not in self._counted:
            if self._network is None:
                self._network = _countable(self.encoder)
            self._counted[key] = counted(self._network, self.image, patches, blocks, backward)
        return self._counted[key]


def counted(network: nn.Module, image: tuple[int, int, int], patches: int, blocks: int, backward: bool) -> float:
    """Operations that torch counts for one image.

    Args:
        network: a `PatchEncoder` on the meta device, where nothing is computed.
        image: channels, height and width.
        patches: of each pass.
        blocks: passes over patches of their own.
        backward: with the backward pass.
    """
    indices = torch.zeros(1, blocks, patches, dtype=torch.long, device="meta")
    with torch.set_grad_enabled(backward), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        features: Tensor = network(torch.empty(1, *image, device="meta"), indices[:, 0] if blocks == 1 else indices)
        if backward:
            features.sum().backward()
    return float(counter.get_total_flops())


def _countable(encoder: PatchEncoder) -> nn.Module:
    """A copy without values, whose attention torch can count."""
    assert isinstance(encoder, nn.Module)
    network = copy.deepcopy(encoder).to("meta").requires_grad_(True)
    for module in network.modules():
        if isinstance(module, Attention):
            module.fused_attn = False
    return network


class PretrainingFlops:
    """FLOPs per image in pretraining.

    Args:
        encoder: context and target encoder.
        predictor: the predictor.
        image: channels, height and width.
        target: see `ijepa.models.jepa.JEPA`.
    """

    def __init__(self, encoder: PatchEncoder, predictor: Predictor, image: tuple[int, int, int], target: str) -> None:
        self.encoder = EncoderFlops(encoder, image)
        self.predictor = predictor
        self.target = target

    def encoder_flops(self) -> float:
        """FLOPs of an encoder's forward pass on one whole image."""
        return self.encoder.forward(self.encoder.patches)

    def forward_flops(self, context: int, blocks: int, patches: int) -> float:
        """FLOPs of the forward pass of all three networks on one image; see `step_flops`."""
        return self.encoder_flops() + (self.step_flops(context, blocks, patches) - self.encoder_flops()) / 3

    def step_flops(self, context: int, blocks: int, patches: int) -> float:
        """Operations for one image with C, T and K as given; the target encoder has no backward pass."""
        trained = self.encoder.step(context) + 3.0 * self.predictor.forward_flops(context, blocks, patches)
        if self.target == "pixels":
            return trained
        if self.target == "input":
            return trained + self.encoder.forward(patches, blocks)
        return trained + self.encoder_flops()
