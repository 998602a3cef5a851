"""Figures of attention maps."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ijepa.pictures.sheet import Grid, bar, heat, mark, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def attention(images: Tensor, weights: Tensor, grid: Grid, query: Grid, heads: int) -> "Figure":
    """Attention maps of a block, a row per image: the mean over all query patches, and that of one query patch.

    I-JEPA has no class token whose attention could be shown. The mean over query patches shows how much attention
    each patch receives, averaged over heads and for each head; the last column shows what the marked query patch
    attends to. Values are multiples of uniform attention.

    Args:
        images: [B, C, H, W], see `rgb`.
        weights: [B, heads, N, N], rows sum to 1, see `ijepa.models.attention`.
        grid: rows and columns of patches.
        query: row and column of the marked query patch.
        heads: maximum number of heads to show.
    """
    pictures, patch_size = rgb(images), images.shape[-2] // grid[0]
    relative = weights.float() * weights.shape[-1]
    received = relative.mean(dim=2)  # [B, heads, N]
    heads = min(heads, weights.shape[1])
    maps = [received.mean(dim=1), *received.unbind(1)[:heads]]
    from_query = relative[:, :, query[0] * grid[1] + query[1]].mean(dim=1)  # [B, N]
    names = [f"head {number}" for number in range(1, heads + 1)]
    rows = [[picture] * (heads + 3) for picture in pictures]
    figure, axes = sheet(rows, ["image", "all heads", *names, "from patch"], below=0.42)
    shown = [values.unflatten(1, grid).numpy() for values in maps]
    received_limits, query_limits = _limits(np.stack(shown)), _limits(from_query.numpy())
    for row, picture in enumerate(pictures):
        for column, values in enumerate(shown, 1):
            received_map = heat(axes[row, column], values[row], picture, received_limits)
        query_map = heat(axes[row, -1], from_query.unflatten(1, grid).numpy()[row], picture, query_limits)
        for axis in (axes[row, 0], axes[row, -1]):
            mark(axis, query, patch_size)
    bar(figure, received_map, list(axes[:, :-1].flat), "attention received, times uniform", "both")
    bar(figure, query_map, list(axes[:, -1:].flat), "times uniform", "both")
    return figure


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """The 1st and the 99th percentile, at least 0.001 apart."""
    low, high = np.percentile(values, (1, 99))
    return float(low), float(max(high, low + 1e-3))
