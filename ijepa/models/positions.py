"""Fixed position embeddings for any grid of patches: 2-D sin-cos, or resampled from learnt ones."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.util.errors import ConfigError

Positions = Literal["index", "scaled", "stored"]
Grid = tuple[int, int]


def sincos_2d(width: int, grid: Grid, reference: Grid | None = None) -> Tensor:
    """2-D sin-cos position embeddings of a grid's patches in row-major order: [H * W, width].

    The first half of the dimensions encodes the column, the second the row (the order of the reference
    implementation). Each half has width / 4 sines, then width / 4 cosines, of coordinate / 10000 ** (i / (width / 4)).

    Args:
        width: embedding dimension, divisible by 4.
        grid: rows and columns of patches, (H, W).
        reference: if given, patch centres are mapped onto this grid: (i + .5) * reference / grid - .5, so that a
            point in the image keeps its embedding from pretraining; None: coordinates are patch indices.

    Raises:
        ConfigError: if ``width`` is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError("width", width, "2-D sin-cos position embeddings need a multiple of 4")
    coordinates = []
    for axis in range(2):
        index = torch.arange(grid[axis], dtype=torch.float64)
        if reference is not None:
            index = (index + 0.5) * reference[axis] / grid[axis] - 0.5
        coordinates.append(index)
    rows, columns = torch.meshgrid(*coordinates, indexing="ij")
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.stack([columns.flatten(), rows.flatten()], dim=1)[:, :, None] * frequencies  # [N, 2, width / 4]
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def resample_positions(table: Tensor, grid: Grid, new_grid: Grid) -> Tensor:
    """Resamples learnt position embeddings [1, H * W, D] bicubically from ``grid`` to ``new_grid``: [H' * W', D]."""
    if grid == new_grid:
        return table[0]
    planes = table.float().unflatten(1, grid).permute(0, 3, 1, 2)  # [1, D, H, W]
    resampled = F.interpolate(planes, size=new_grid, mode="bicubic", antialias=True, align_corners=False)
    return resampled[0].flatten(1).T


class PositionTable:
    """Sin-cos position embeddings, computed once for each grid and device.

    Args:
        width: embedding dimension.
        grid: rows and columns of patches in pretraining.
        positions: ``index`` (coordinates are patch indices, as published) or ``scaled`` (mapped onto ``grid``).
    """

    def __init__(self, width: int, grid: Grid, positions: Positions) -> None:
        self.width = width
        self.grid = grid
        self.positions = positions
        self._cache: dict[tuple[Grid, torch.device], Tensor] = {}

    def __call__(self, grid: Grid, device: torch.device) -> Tensor:
        """The embeddings [H * W, width], float32, for an image of ``grid`` patches."""
        key = (grid, device)
        if key not in self._cache:
            reference = self.grid if self.positions == "scaled" else None
            with torch.device("cpu"):
                self._cache[key] = sincos_2d(self.width, grid, reference).to(device)
        return self._cache[key]
