"""Frozen features of whole images: average-pooled patches, or raw pixels."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.evaluation.runtime import Embed

PIXEL_SIDE = 48
"""Maximum height and width at which raw pixels are compared."""


class Features(NamedTuple):
    """Features of the readable images of a split.

    values: [n, D] float32.
    labels: [n] int64 class indices, by label set.
    indices: [n], the images' indices in the split.
    """

    values: Tensor
    labels: dict[str, Tensor]
    indices: Tensor

    def select_labels(self, names: list[str]) -> "Features":
        """The same features with only these label sets."""
        return self._replace(labels={name: labels for name, labels in self.labels.items() if name in names})


def last_layers(values: Tensor, layers: int, total: int) -> Tensor:
    """The last ``layers`` of the ``total`` blocks in features [n, D * total]: [n, D * layers]."""
    return values[:, values.shape[1] // total * (total - layers) :]


@torch.inference_mode()
def extract(embed: Embed, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Embeds all readable images.

    Args:
        embed: computes the features of a batch.
        batches: images [B, C, H, W], and [B]: 1 for each image that could be read, else 0.
        device: device of ``embed``.

    Returns:
        Features [n, D] float32 of the readable images, and [N] bool: which images are readable.
    """
    values, readable = [], []
    for images, flags in batches:
        mask = flags.bool()
        readable.append(mask)
        if mask.any():
            values.append(embed(images[mask].to(device, non_blocking=True)).float().cpu())
    return torch.cat(values or [torch.empty(0, 0)]), torch.cat(readable or [torch.empty(0, dtype=torch.bool)])


def pixels(images: Tensor) -> Tensor:
    """Raw pixels of images [B, C, H, W], downsampled to `PIXEL_SIDE` if larger: [B, C * H * W]."""
    size = [min(side, PIXEL_SIDE) for side in images.shape[-2:]]
    if list(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)


def pixel_patches(images: Tensor, patch_size: int) -> Tensor:
    """Raw pixels of each patch of images [B, C, H, W]: [B, N, C * P * P]."""
    return F.pixel_unshuffle(images, patch_size).flatten(2).transpose(1, 2)
