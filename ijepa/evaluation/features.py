"""Frozen features of whole images: average-pooled patches, or raw pixels."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_SIDE = 48
"""Raw pixels are compared at no more than this many pixels a side."""


class Features(NamedTuple):
    """values: [n, D] float32; labels: by label set, [n] int64 class indices."""

    values: Tensor
    labels: dict[str, Tensor]


Embed = Callable[[Tensor], Tensor]
"""From images [B, C, H, W] in 0..1 to [B, D]."""


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


def pooled(encoder: nn.Module) -> Embed:
    """Average-pooled patch features of ``encoder``, a module from images in 0..1 to [B, N, D]."""
    return lambda images: encoder(images).float().mean(dim=1)


def pixels(images: Tensor) -> Tensor:
    """The pixels themselves, reduced to `PIXEL_SIDE` where images are larger: [B, C * H * W]."""
    size = [min(side, PIXEL_SIDE) for side in images.shape[-2:]]
    if list(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)
