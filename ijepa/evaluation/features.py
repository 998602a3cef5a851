"""Frozen features of whole images: average-pooled patches, or raw pixels."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.evaluation.runtime import Embed

PIXEL_SIDE = 48
"""Raw pixels are compared at this resolution at most."""


class Features(NamedTuple):
    """values: [n, D] float32; labels: by label set, [n] int64 class indices; indices: [n], which images these are."""

    values: Tensor
    labels: dict[str, Tensor]
    indices: Tensor

    def only(self, names: list[str]) -> "Features":
        """With these label sets alone."""
        return self._replace(labels={name: labels for name, labels in self.labels.items() if name in names})


def of_last(values: Tensor, layers: int, more: int) -> Tensor:
    """The part of features [n, D * more] that belongs to the last ``layers`` blocks: [n, D * layers]."""
    return values[:, values.shape[1] // more * (more - layers) :]


@torch.inference_mode()
def extract(embed: Embed, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Applies ``embed`` to all readable images.

    Args:
        embed: computes the features of a batch.
        batches: images, and 1 for each image that could be read.
        device: device of ``embed``.

    Returns:
        Features [n, D] float32 of the readable images, and [N] bool: which images are readable.
    """
    values, readable = [], []
    for images, read in batches:
        kept = read.bool()
        readable.append(kept)
        if kept.any():
            values.append(embed(images[kept].to(device, non_blocking=True)).float().cpu())
    return torch.cat(values or [torch.empty(0, 0)]), torch.cat(readable or [torch.empty(0, dtype=torch.bool)])


def pixels(images: Tensor) -> Tensor:
    """The pixels themselves, reduced to `PIXEL_SIDE` where images are larger: [B, C * H * W]."""
    size = [min(side, PIXEL_SIDE) for side in images.shape[-2:]]
    if list(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)


def pixel_patches(images: Tensor, patch_size: int) -> Tensor:
    """The pixels of each patch of images [B, C, H, W]: [B, N, C * P * P]."""
    return F.pixel_unshuffle(images, patch_size).flatten(2).transpose(1, 2)
