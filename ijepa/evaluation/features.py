"""Frozen features of whole images: average-pooled patches, or raw pixels."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.evaluation.ranks import ALONE, Ranks
from ijepa.models.pretrained import PretrainedEncoder

PIXEL_SIDE = 48
"""Raw pixels are compared at no more than this many pixels a side."""


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


Embed = Callable[[Tensor], Tensor]
"""From images [B, C, H, W] in 0..1 to [B, D], or of their patches [B, N, D]."""


@dataclass(frozen=True)
class Runtime:
    """Where and how frozen encoders run.

    Attributes:
        device: theirs.
        bf16: compute in bf16 under autocast; features are float32 either way.
        compiled: compile each block.
        ranks: the processes that share the work.
    """

    device: torch.device
    bf16: bool = False
    compiled: bool = False
    ranks: Ranks = ALONE

    def pooled(self, encoder: PretrainedEncoder, layers: int = 1, mirrored: bool = False) -> "Pooled":
        """Average-pooled patch features of ``encoder``'s last ``layers`` blocks."""
        return Pooled(self._ready(encoder), self, layers, mirrored)

    def patches(self, encoder: PretrainedEncoder, layers: int = 1) -> "Patches":
        """Patch features of ``encoder``'s last ``layers`` blocks."""
        return Patches(self._ready(encoder), self, layers)

    def run(self, network: PretrainedEncoder, images: Tensor, layers: int) -> Tensor:
        """Patch features [B, N, D * layers] in float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            features: Tensor = network(images, last=layers)
        return features.float()

    def _ready(self, encoder: PretrainedEncoder) -> PretrainedEncoder:
        network = encoder.to(self.device)
        if self.compiled:
            for block in network.encoder.blocks:
                block.compile()
        return network


@dataclass(frozen=True)
class Patches:
    """Patch features of the last ``layers`` blocks, each through the final norm, concatenated: [B, N, D * layers].

    The last layer's stand last.
    """

    encoder: PretrainedEncoder
    runtime: Runtime
    layers: int

    def __call__(self, images: Tensor) -> Tensor:
        return self.runtime.run(self.encoder, images, self.layers)


@dataclass(frozen=True)
class Pooled:
    """Average-pooled patches of the last ``layers`` blocks, each through the final norm, concatenated: [B, D * layers].

    The paper's evaluations take the last layer or the last four (appendix A.2); the last layer's stand last. With
    ``mirrored``, those of the mirror images.
    """

    encoder: PretrainedEncoder
    runtime: Runtime
    layers: int
    mirrored: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        images = images.flip(-1) if self.mirrored else images
        return self.runtime.run(self.encoder, images, self.layers).mean(dim=1)

    def fingerprint(self) -> str:
        """Of all that the features depend on but the images: weights, description, layers, precision."""
        plain = {"spec": self.encoder.spec.plain(), "layers": self.layers, "bf16": self.runtime.bf16}
        plain |= {"mirrored": True} if self.mirrored else {}
        found = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return found.hexdigest()


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
