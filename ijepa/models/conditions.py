"""What a sketch decoder is conditioned on: pooled representations of frozen networks (paper, section 8)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ijepa.masking import Masks
from ijepa.models.predictor import Predictor
from ijepa.models.protocol import PatchEncoder
from ijepa.models.transformer import gather

Condition = Literal["prediction", "target", "image", "nothing"]


class Conditions(nn.Module):
    """Frozen context encoder, predictor and target encoder.

    Args:
        condition: ``prediction``: the predictor's output for one target block, from the context, averaged over its
            patches; ``target``: the target encoder's output at that block, averaged; ``image``: that of all patches,
            averaged; ``nothing``: zeros.
        target_encoder: for ``target`` and ``image``.
        context_encoder: for ``prediction``.
        predictor: for ``prediction``.

    Attributes:
        width: of the condition.
    """

    def __init__(
        self,
        condition: Condition,
        target_encoder: PatchEncoder,
        context_encoder: PatchEncoder | None = None,
        predictor: Predictor | None = None,
    ) -> None:
        super().__init__()
        self.condition = condition
        self.width: int = target_encoder.width
        self.target_encoder: PatchEncoder | None = None
        self.context_encoder: PatchEncoder | None = None
        self.predictor: Predictor | None = None
        if condition == "prediction":
            assert context_encoder is not None
            assert predictor is not None
            self.context_encoder, self.predictor, self.width = context_encoder, predictor, predictor.output_width
        elif condition != "nothing":
            self.target_encoder = target_encoder
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Conditions":
        """Stays in evaluation mode: without dropout, and with the statistics that the networks have."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, masks: Masks) -> Tensor:
        """Conditions [B, width] of normalised ``images`` [B, C, H, W]; ``masks`` has one target block, [B, 1, K]."""
        if self.condition == "nothing":
            return images.new_zeros(len(images), self.width)
        if self.condition == "prediction":
            assert self.context_encoder is not None
            assert self.predictor is not None
            context = self.context_encoder(images, masks.context, masks.valid)  # [B, C, D]
            predictions = self.predictor(context, masks.context, masks.targets, masks.valid)  # [B, 1, K, D]
            return predictions[:, 0].mean(dim=1)
        assert self.target_encoder is not None
        features = self.target_encoder(images)  # [B, N, D]
        if self.condition == "target":
            features = gather(features, masks.targets)[:, 0]  # [B, K, D]
        return features.mean(dim=1)


def boxes(block: Tensor, grid: tuple[int, int]) -> Tensor:
    """The smallest boxes around blocks of patches.

    Args:
        block: [B, K], indices of patches in row-major order.
        grid: rows and columns of patches.

    Returns:
        [B, 4], top, left, bottom and right, in parts of the image's sides.
    """
    rows, columns = block // grid[1], block % grid[1]
    edges = (rows.amin(1) / grid[0], columns.amin(1) / grid[1], (rows.amax(1) + 1) / grid[0],
             (columns.amax(1) + 1) / grid[1])  # fmt: skip
    return torch.stack(edges, dim=1)
