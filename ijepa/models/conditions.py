"""What a sketch decoder is conditioned on: representations of frozen networks (paper, section 8)."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ijepa.masking import Masks
from ijepa.models.predictor import Predictor
from ijepa.models.protocol import PatchEncoder
from ijepa.models.transformer import gather

Condition = Literal["prediction", "target", "image", "nothing"]


class Representation(NamedTuple):
    """Representations of blocks of images.

    Attributes:
        tokens: [n, T, D]; T is 1 if they are pooled.
        positions: [n, T, 4], the box of each token's patches; see `boxes`.
        blocks: [n, 4], the boxes of the blocks.
    """

    tokens: Tensor
    positions: Tensor
    blocks: Tensor

    def repeated(self, times: int) -> "Representation":
        """Each one so many times in a row."""
        return Representation(*(tensor.repeat_interleave(times, 0) for tensor in self))


class Conditions(nn.Module):
    """Frozen context encoder, predictor and target encoder.

    Args:
        condition: ``prediction``: the predictor's output for a target block, from the context; ``target``: the target
            encoder's output at that block; ``image``: that of all patches; ``nothing``: zeros.
        pooled: averaged over the patches, as in the paper; else one token for each patch.
        grid: rows and columns of patches.
        target_encoder: for ``target`` and ``image``.
        context_encoder: for ``prediction``.
        predictor: for ``prediction``.

    Attributes:
        width: of the tokens.
    """

    def __init__(
        self,
        condition: Condition,
        pooled: bool,
        grid: tuple[int, int],
        target_encoder: PatchEncoder,
        context_encoder: PatchEncoder | None = None,
        predictor: Predictor | None = None,
    ) -> None:
        super().__init__()
        self.condition, self.pooled, self.grid = condition, pooled, grid
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
    def forward(self, images: Tensor, masks: Masks) -> Representation:
        """The representations of all M target blocks of normalised ``images`` [B, C, H, W]: n = B * M, image by image.

        ``masks.targets``: [B, M, K].
        """
        targets = masks.targets
        patches = targets.flatten(0, 1)  # [n, K]
        blocks = boxes(patches, self.grid)  # [n, 4]
        if self.condition == "image":
            patches = torch.arange(self.grid[0] * self.grid[1], device=targets.device).expand(len(blocks), -1)
        tokens = self._patches(images, masks).flatten(0, 1)  # [n, T, D]
        if self.pooled or self.condition == "nothing":
            return Representation(tokens.mean(dim=1, keepdim=True), boxes(patches, self.grid)[:, None], blocks)
        return Representation(tokens, boxes(patches[..., None], self.grid), blocks)

    def _patches(self, images: Tensor, masks: Masks) -> Tensor:
        """The patches' representations: [B, M, K, D], or [B, M, N, D] for ``image``."""
        count = masks.targets.shape[1]
        if self.condition == "nothing":
            return images.new_zeros(len(images), count, 1, self.width)
        if self.condition == "prediction":
            assert self.context_encoder is not None
            assert self.predictor is not None
            context = self.context_encoder(images, masks.context, masks.valid)  # [B, C, D]
            predictions: Tensor = self.predictor(context, masks.context, masks.targets, masks.valid)
            return predictions
        assert self.target_encoder is not None
        features = self.target_encoder(images)  # [B, N, D]
        if self.condition == "target":
            return gather(features, masks.targets)
        return features[:, None].expand(-1, count, -1, -1)


def boxes(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """The smallest boxes around sets of patches.

    Args:
        patches: [..., K], indices of patches in row-major order.
        grid: rows and columns of patches.

    Returns:
        [..., 4], top, left, bottom and right, in parts of the image's sides.
    """
    rows, columns = patches // grid[1], patches % grid[1]
    edges = (rows.amin(-1) / grid[0], columns.amin(-1) / grid[1], (rows.amax(-1) + 1) / grid[0],
             (columns.amax(-1) + 1) / grid[1])  # fmt: skip
    return torch.stack(edges, dim=-1)
