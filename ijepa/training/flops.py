"""FLOPs of a training step, from shapes: matrix products only, two FLOPs per multiply-add."""

import copy
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ijepa.models.predictor import Predictor
from ijepa.models.protocol import PatchEncoder
from ijepa.models.transformer import write_out_attention


@runtime_checkable
class AnalyticFlops(Protocol):
    """An encoder that computes its FLOPs from shapes; for other encoders, torch's `FlopCounterMode` counts them."""

    def embedding_flops(self, patches: int) -> float:
        """FLOPs of embedding ``patches`` patches, forward."""

    def block_flops(self, patches: int) -> float:
        """FLOPs of the transformer blocks on ``patches`` patches of one image, forward."""


class EncoderFlops:
    """FLOPs of one image in an encoder, which embeds every patch, masked ones included.

    Args:
        encoder: on any device; not modified.
        image: channels, height and width.
    """

    def __init__(self, encoder: PatchEncoder, image: tuple[int, int, int]) -> None:
        rows, columns = encoder.grid_of(*image[1:])
        self.encoder = encoder
        self.image = image
        self.patches = rows * columns
        self._counts: dict[tuple[int, int, bool, int | None], float] = {}
        self._network: nn.Module | None = None

    def forward(self, patches: int, blocks: int = 1, depth: int | None = None) -> float:
        """FLOPs of the forward pass on ``blocks`` sets of ``patches`` patches; the image is embedded once.

        ``depth``: number of transformer blocks that are computed; None: all.
        """
        if isinstance(self.encoder, AnalyticFlops):
            fraction = 1.0 if depth is None else depth / self.encoder.depth
            return self.encoder.embedding_flops(self.patches) + blocks * fraction * self.encoder.block_flops(patches)
        return self._count(patches, blocks, backward=False, depth=depth)

    def step(self, patches: int) -> float:
        """FLOPs of the forward and backward pass on ``patches`` patches.

        The backward pass costs twice the forward pass, except for the patch embedding, where it costs the same: images
        need no gradient, only its weights do.
        """
        if isinstance(self.encoder, AnalyticFlops):
            return 2.0 * self.encoder.embedding_flops(self.patches) + 3.0 * self.encoder.block_flops(patches)
        return self._count(patches, 1, backward=True)

    def _count(self, patches: int, blocks: int, backward: bool, depth: int | None = None) -> float:
        key = (patches, blocks, backward, depth)
        if key not in self._counts:
            if self._network is None:
                self._network = _meta_copy(self.encoder)
            self._counts[key] = count_flops(self._network, self.image, patches, blocks, backward, depth)
        return self._counts[key]


def count_flops(
    network: nn.Module, image: tuple[int, int, int], patches: int, blocks: int, backward: bool,
    depth: int | None = None,
) -> float:  # fmt: skip
    """FLOPs of one image, counted by torch.

    Args:
        network: a `PatchEncoder` on the meta device, where nothing is computed.
        image: channels, height and width.
        patches: number of patches in each set.
        blocks: number of sets of patches.
        backward: also count the backward pass.
        depth: number of transformer blocks that are computed; None: all.
    """
    options = {} if depth is None else {"depths": (depth,)}
    indices = torch.zeros(1, blocks, patches, dtype=torch.long, device="meta")
    with torch.set_grad_enabled(backward), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        features: Tensor = network(
            torch.empty(1, *image, device="meta"), indices[:, 0] if blocks == 1 else indices, **options
        )
        if backward:
            features.sum().backward()
    return float(counter.get_total_flops())


def _meta_copy(encoder: PatchEncoder) -> nn.Module:
    """A copy on the meta device, with unfused attention, which `FlopCounterMode` can count."""
    assert isinstance(encoder, nn.Module)
    network = copy.deepcopy(encoder).to("meta").requires_grad_(True)
    write_out_attention(network)
    return network


class PretrainingFlops:
    """FLOPs per image in pretraining.

    Args:
        encoder: the context encoder; the target encoder has the same architecture.
        predictor: the predictor.
        image: channels, height and width.
        target: ``output``, ``input`` or ``pixels``, see `ijepa.models.jepa.JEPA`.
        depth: number of the target encoder's blocks that are computed; None: all.
        teacher: computes the targets instead of the target encoder.
    """

    def __init__(
        self, encoder: PatchEncoder, predictor: Predictor, image: tuple[int, int, int], target: str,
        depth: int | None = None, teacher: PatchEncoder | None = None,
    ) -> None:  # fmt: skip
        self.encoder = EncoderFlops(encoder, image)
        self.target_encoder = self.encoder if teacher is None else EncoderFlops(teacher, image)
        self.predictor = predictor
        self.target = target
        self.depth = depth

    def encoder_flops(self) -> float:
        """FLOPs of an encoder's forward pass on one whole image."""
        return self.encoder.forward(self.encoder.patches)

    def forward_flops(self, context: int, blocks: int, patches: int) -> float:
        """FLOPs of the forward pass of all three networks on one image; see `step_flops`."""
        target = self._target_flops(blocks, patches)
        return target + (self.step_flops(context, blocks, patches) - target) / 3

    def step_flops(self, context: int, blocks: int, patches: int) -> float:
        """FLOPs of one image in a training step; the target encoder has no backward pass.

        Args:
            context: C, context patches.
            blocks: T, target blocks.
            patches: K, patches per target block.
        """
        trained = self.encoder.step(context) + 3.0 * self.predictor.forward_flops(context, blocks, patches)
        return trained + self._target_flops(blocks, patches)

    def _target_flops(self, blocks: int, patches: int) -> float:
        if self.target == "pixels":
            return 0.0
        if self.target == "input":
            return self.target_encoder.forward(patches, blocks, self.depth)
        return self.target_encoder.forward(self.encoder.patches, 1, self.depth)
