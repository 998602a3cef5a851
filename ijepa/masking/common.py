"""Shared by all samplers: `Masks`, blocks on a grid, and random choice of patches."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ijepa.util.errors import ConfigError
from ijepa.util.randomness import MaskStream, words

Grid = tuple[int, int]
Range = tuple[float, float]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

EXCLUDED = np.uint32(0xFFFFFFFF)


class Masks(NamedTuple):
    """Patch indices in row-major order, for one batch.

    context: [B, C] int64, ascending; padded with 0 where ``valid`` is False.
    targets: [B, T, K] int64, ascending within each block.
    valid: [B, C] bool, or None if there is no padding.
    """

    context: Tensor
    targets: Tensor
    valid: Tensor | None = None

    def to(self, device: torch.device) -> "Masks":
        """On this device; a GPU is not waited for."""
        return Masks(*(None if part is None else part.to(device, non_blocking=True) for part in self))  # type: ignore[arg-type]

    def rows(self, rows: Tensor | slice) -> "Masks":
        """Those of some images."""
        return Masks(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]

    def with_targets(self, targets: Tensor) -> "Masks":
        """With other target blocks [B, T, K]."""
        return self._replace(targets=targets)


@runtime_checkable
class Masking(Protocol):
    """Draws the masks of the images at ``positions`` [B] of the global batch of ``step``.

    ``context_patches``: (typical) number of context patches per image, printed at start-up.
    """

    context_patches: int

    def sample(self, seed: int, step: int, positions: Ints) -> Masks: ...


def interpolate(limits: Range, fraction: float) -> float:
    return float(limits[0] + fraction * (limits[1] - limits[0]))


def resolve_context_patches(requested: int | None, available: int, source: str) -> int:
    if requested is not None and requested > available:
        raise ConfigError("masking.context_patches", requested, f"{source} leaves {available}; try at most {available}")
    return available if requested is None else requested


def union(corners: Ints, size: Grid, grid: Grid) -> Bools:
    """The union of blocks of ``size`` at ``corners`` [B, T, 2]: [B, H, W]."""
    batch, patches = len(corners), grid[0] * grid[1]
    covered = np.zeros((batch, *grid), dtype=bool)
    covered.reshape(-1)[blocks_at(corners, size, grid) + patches * np.arange(batch)[:, None, None]] = True
    return covered


def blocks_at(corners: Ints, size: Grid, grid: Grid) -> Ints:
    """The patch indices [B, T, K] of blocks of ``size`` at ``corners`` [B, T, 2]."""
    offsets = (np.arange(size[0])[:, None] * grid[1] + np.arange(size[1])).ravel()
    return corners[..., :1] * grid[1] + corners[..., 1:] + offsets


def draw_patches(allowed: Bools, count: int, seed: int, stream: int, step: int, positions: Ints) -> Ints:
    """Draws ``count`` of the ``allowed`` patches [B, N] of each image, uniformly: ascending indices [B, count]."""
    images, patches = allowed.shape
    drawn = words(seed, stream, step, positions, -(-patches // 2)).view(np.uint32)[:, :patches]
    keys = np.where(allowed, np.minimum(drawn, EXCLUDED - np.uint32(1)), EXCLUDED)
    chosen = np.flatnonzero(keys <= np.sort(keys, axis=1)[:, count - 1 : count])
    if len(chosen) != images * count:  # a tie at the threshold, about once in 10**8 images
        return np.sort(np.argsort(keys, axis=1, kind="stable")[:, :count], axis=1)
    return chosen.reshape(images, count) - patches * np.arange(images)[:, None]


def build_masks(
    allowed: Bools, targets: Ints, seed: int, step: int, positions: Ints, context_patches: int | None
) -> Masks:
    """The masks with ``targets`` [B, T, K] and a context drawn from ``allowed`` [B, H, W] or [B, N].

    The context is ``context_patches`` random allowed patches of each image; None: all of them, padded.
    """
    allowed = allowed.reshape(len(allowed), -1)
    if context_patches is not None:
        context = draw_patches(allowed, context_patches, seed, MaskStream.SURPLUS, step, positions)
        return Masks(torch.from_numpy(context), torch.from_numpy(targets))
    count = allowed.sum(axis=1)
    context = np.argsort(~allowed, axis=1, kind="stable")[:, : count.max()]
    valid = np.arange(count.max()) < count[:, None]
    context[~valid] = 0
    return Masks(torch.from_numpy(context), torch.from_numpy(targets), torch.from_numpy(valid))
