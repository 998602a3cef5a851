"""Frozen features of whole images: average-pooled patches, or raw pixels."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_SIDE = 48
"""Raw pixels are compared at no more than this many pixels a side."""


class Features(NamedTuple):
    """values: [n, D] float32; labels: [n] int64, -1 where there is none."""

    values: Tensor
    labels: Tensor


Embed = Callable[[Tensor], Tensor]
"""From images [B, C, H, W] in 0..1 to [B, D]."""


@torch.inference_mode()
def extract(
    embed: Embed,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    device: torch.device,
    whole: list[int] | None = None,
) -> Features:
    """``embed`` of every readable image.

    Args:
        embed: the features of a batch.
        batches: images, labels, and 1 where the image could be read.
        device: where ``embed`` runs.
        whole: takes the third of each image.
    """
    values, labels = [], []
    for images, targets, readable in batches:
        kept = readable.bool()
        if whole is not None:
            whole += readable.tolist()
        if kept.any():
            values.append(embed(images[kept].to(device, non_blocking=True)).float().cpu())
            labels.append(targets[kept])
    if not values:
        return Features(torch.empty(0, 0), torch.empty(0, dtype=torch.int64))
    return Features(torch.cat(values), torch.cat(labels))


def pooled(encoder: nn.Module) -> Embed:
    """Average-pooled patch features of ``encoder``, a module from images in 0..1 to [B, N, D]."""
    return lambda images: encoder(images).float().mean(dim=1)


def pixels(images: Tensor) -> Tensor:
    """The pixels themselves, reduced to `PIXEL_SIDE` where images are larger: [B, C * H * W]."""
    size = [min(side, PIXEL_SIDE) for side in images.shape[-2:]]
    if list(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)
