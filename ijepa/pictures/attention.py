"""Figures of attention maps."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ijepa.pictures.sheet import Grid, bar, heat, mark, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def attention(images: Tensor, weights: Tensor, grid: Grid, place: Grid, heads: int) -> "Figure":
    """Attention of a block, a row per image: averaged over all query patches, and from one of them.

    I-JEPA has no class token whose attention could be shown. The mean over query patches shows how much attention
    each patch receives, averaged over heads and for each head; the last column shows what the marked patch attends
    to. Values are multiples of uniform attention.

    Args:
        images: [B, C, H, W], see `rgb`.
        weights: [B, heads, N, N], rows sum to 1, see `ijepa.models.attention`.
        grid: rows and columns of patches.
        place: row and column of the marked patch.
        heads: number of heads to show, at most.
    """
    pictures, patch_size = rgb(images), images.shape[-2] // grid[0]
    times = weights.float() * weights.shape[-1]
    received = times.mean(dim=2)  # [B, heads, N]
    heads = min(heads, weights.shape[1])
    maps = [received.mean(dim=1), *received.unbind(1)[:heads]]
    own = times[:, :, place[0] * grid[1] + place[1]].mean(dim=1)  # [B, N]
    names = [f"head {number}" for number in range(1, heads + 1)]
    rows = [[picture] * (heads + 3) for picture in pictures]
    figure, axes = sheet(rows, ["image", "all heads", *names, "from patch"], below=0.42)
    shown = [values.unflatten(1, grid).numpy() for values in maps]
    first, last = _limits(np.stack(shown)), _limits(own.numpy())
    for row, picture in enumerate(pictures):
        for column, values in enumerate(shown, 1):
            drawn = heat(axes[row, column], values[row], picture, first)
        alone = heat(axes[row, -1], own.unflatten(1, grid).numpy()[row], picture, last)
        for axis in (axes[row, 0], axes[row, -1]):
            mark(axis, place, patch_size)
    bar(figure, drawn, list(axes[:, :-1].flat), "attention received, times uniform", "both")
    bar(figure, alone, list(axes[:, -1:].flat), "times uniform", "both")
    return figure


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 1st and 99th percentiles, as a range that is never empty."""
    low, high = np.percentile(values, (1, 99))
    return float(low), float(max(high, low + 1e-3))
