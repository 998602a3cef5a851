"""Frozen features of whole images: average-pooled patches, or raw pixels."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.models.pretrained import PretrainedEncoder

PIXEL_SIDE = 48
"""Raw pixels are compared at no more than this many pixels a side."""


class Features(NamedTuple):
    """values: [n, D] float32; labels: by label set, [n] int64 class indices."""

    values: Tensor
    labels: dict[str, Tensor]


Embed = Callable[[Tensor], Tensor]
"""From images [B, C, H, W] in 0..1 to [B, D]."""


@dataclass(frozen=True)
class Runtime:
    """Where and how frozen encoders run.

    Attributes:
        device: theirs.
        bf16: compute in bf16 under autocast; features are float32 either way.
        compiled: compile each block.
    """

    device: torch.device
    bf16: bool = False
    compiled: bool = False

    def pooled(self, encoder: PretrainedEncoder) -> Embed:
        """Average-pooled patch features of ``encoder``."""
        network = encoder.to(self.device)
        if self.compiled:
            for block in network.encoder.blocks:
                block.compile()

        def embed(images: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                features: Tensor = network(images)
            return features.float().mean(dim=1)

        return embed


@torch.inference_mode()
def extract(embed: Embed, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    """``embed`` of every readable image.

    Args:
        embed: the features of a batch.
        batches: images, and 1 where an image could be read.
        device: where ``embed`` runs.

    Returns:
        [n, D] float32 of the readable ones, and [N] bool, which these are.
    """
    values, readable = [], []
    for images, read in batches:
        kept = read.bool()
        readable.append(kept)
        if kept.any():
            values.append(embed(images[kept].to(device, non_blocking=True)).float().cpu())
    return torch.cat(values) if values else torch.empty(0, 0), torch.cat(readable)


def pixels(images: Tensor) -> Tensor:
    """The pixels themselves, reduced to `PIXEL_SIDE` where images are larger: [B, C * H * W]."""
    size = [min(side, PIXEL_SIDE) for side in images.shape[-2:]]
    if list(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)
