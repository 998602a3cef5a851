"""The sketch decoder: a U-Net that turns noise into the pixels of a representation (RCDM, 2112.09164)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

Shown = Literal["block", "image"]
MAX_GROUPS = 32
"""Of the group norms, as in the library's own networks."""


class SketchDecoder(nn.Module):
    """Predicts the noise of noised pictures from a representation and the block's position in its image.

    Both are added to the embedding of the noise level, which scales and shifts the features of each block of layers.

    Args:
        channels: of the pictures.
        size: S, height and width of the pictures.
        condition_width: of the representations.
        shown: ``block``: the pictures are of the block alone; ``image``: of the whole image, and a further channel of
            the input says where the block is.
        widths: channels of the layers at each resolution, from the finest; each halves the resolution of the one
            before. The coarsest has self-attention.
        layers: of each resolution.
    """

    def __init__(
        self, channels: int, size: int, condition_width: int, shown: Shown, widths: Sequence[int], layers: int
    ) -> None:
        super().__init__()
        self.channels, self.size, self.shown = channels, size, shown
        plain = len(widths) - 1
        unet: Any = UNet2DModel(  # the library has no types
            sample_size=size,
            in_channels=channels + (shown == "image"),
            out_channels=channels,
            block_out_channels=tuple(widths),
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            attention_head_dim=math.gcd(*widths, 64),
            norm_num_groups=math.gcd(*widths, MAX_GROUPS),
            class_embed_type="identity",
        )
        self.unet: nn.Module = unet
        width = 4 * widths[0]  # of the embedding of the noise level
        self.representation = nn.Sequential(
            nn.LayerNorm(condition_width, elementwise_affine=False), nn.Linear(condition_width, width), nn.SiLU(),
            nn.Linear(width, width),
        )  # fmt: skip
        self.position = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width))
        self.no_representation = nn.Parameter(torch.zeros(width))

    def forward(
        self, noised: Tensor, times: Tensor, condition: Tensor, boxes: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """The prediction [B, C, S, S].

        Args:
            noised: [B, C, S, S].
            times: [B], the noise levels.
            condition: [B, D], representations.
            boxes: [B, 4], the block's top, left, bottom and right in parts of the image's sides.
            dropped: bool [B], where the representation is withheld (classifier-free guidance, 2207.12598); None:
                nowhere.
        """
        known = self.representation(condition)
        if dropped is not None:
            known = torch.where(dropped[:, None], self.no_representation.to(known.dtype), known)
        if self.shown == "image":
            noised = torch.cat([noised, self._inside(boxes).to(noised.dtype)], dim=1)
        predicted: Tensor = self.unet(noised, times, class_labels=known + self.position(boxes)).sample
        return predicted

    def _inside(self, boxes: Tensor) -> Tensor:
        """1 where a pixel's centre is in the box, else 0: [B, 1, S, S]."""
        centres = (torch.arange(self.size, device=boxes.device) + 0.5) / self.size
        top, left, bottom, right = boxes[:, :, None].unbind(dim=1)  # [B, 1] each
        rows = (centres >= top) & (centres < bottom)  # [B, S]
        columns = (centres >= left) & (centres < right)
        return (rows[:, None, :, None] & columns[:, None, None, :]).float()

    def guided(self, noised: Tensor, times: Tensor, condition: Tensor, boxes: Tensor, guidance: float) -> Tensor:
        """As `forward`, moved away from what is predicted without a representation by the factor ``guidance``."""
        if guidance == 1:
            return self(noised, times, condition, boxes)
        without = torch.ones(len(noised), dtype=torch.bool, device=noised.device)
        both = torch.cat([~without, without])
        doubled = (torch.cat([tensor, tensor]) for tensor in (noised, times, condition, boxes))
        conditioned, plain = self(*doubled, both).chunk(2)
        return plain + guidance * (conditioned - plain)


def pictures(images: Tensor, boxes: Tensor, size: int, shown: Shown, oversampling: int = 1) -> Tensor:
    """What a decoder should draw: ``images`` [B, C, H, W], or their part in ``boxes`` [B, 4], as [B, C, size, size].

    Args:
        images: [B, C, H, W].
        boxes: [B, 4], see `SketchDecoder.forward`.
        size: of the pictures.
        shown: see `SketchDecoder`.
        oversampling: each pixel of a block is the average of so many squared, as a block that shrinks needs.
    """
    if shown == "image":
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    finer = size * oversampling
    centres = (torch.arange(finer, device=images.device, dtype=images.dtype) + 0.5) / finer
    top, left, bottom, right = (2 * edge[:, None] - 1 for edge in boxes.unbind(dim=1))  # grid_sample: from -1 to 1
    rows, columns = top + (bottom - top) * centres, left + (right - left) * centres  # [B, finer] each
    grid = torch.stack(
        [columns[:, None, :].expand(-1, finer, -1), rows[:, :, None].expand(-1, -1, finer)], dim=-1
    )  # [B, finer, finer, 2]
    found = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(found, oversampling) if oversampling > 1 else found
