"""The baselines for multi-block masks: rasterized and random (paper, table 6).

The third baseline, a single large block, is multi-block with other values: conf/masking/block.yaml.
"""

import numpy as np

from ijepa.masking.common import Grid, Ints, Masks, blocks_at, build_masks, draw_patches, resolve_context_patches, union
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import MaskStream, integers, uniforms


class Rasterized:
    """One quadrant is the context, the three others are the targets (paper, table 6).

    On odd grids the split is drawn before or after the middle patch, and each block, of half the grid rounded down, is
    placed at random in its quadrant, so every row and column can be covered.

    Args:
        grid: rows and columns of patches, at least 2 each.
        context_patches: context patches C per image; None: the whole quadrant.
    """

    def __init__(self, grid: Grid, context_patches: int | None) -> None:
        if min(grid) < 2:
            raise ConfigError("masking.name", "rasterized", f"a {grid[0]}x{grid[1]} grid of patches has no quadrants")
        self.grid = grid
        self.size = grid[0] // 2, grid[1] // 2
        self.context_patches = resolve_context_patches(context_patches, self.size[0] * self.size[1], "a quadrant")

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` of ``step``'s global batch."""
        drawn = uniforms(seed, MaskStream.PLACEMENT, step, positions, 11)
        sizes, grid = np.array(self.size), np.array(self.grid)
        split = sizes + integers(drawn[:, :2], grid - 2 * sizes + 1)  # [B, 2] rows and columns of the first quadrant
        quadrants = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        start = quadrants * split[:, None]  # [B, 4, 2]
        extent = np.where(quadrants, (grid - split)[:, None], split[:, None])
        corners = start + integers(drawn[:, 2:10].reshape(-1, 4, 2), extent - sizes + 1)
        context_quadrant = integers(drawn[:, 10], 4)
        target_quadrants = np.array([[q for q in range(4) if q != c] for c in range(4)])[context_quadrant]  # [B, 3]
        images = np.arange(len(positions))[:, None]
        allowed = union(corners[images, context_quadrant[:, None]], self.size, self.grid)
        targets = blocks_at(corners[images, target_quadrants], self.size, self.grid)
        return build_masks(allowed, targets, seed, step, positions, self.context_patches)


class Random:
    """Random patches are the targets (T = 1), the others are the context (paper, table 6).

    Args:
        grid: rows and columns of patches.
        ratio: fraction of the patches that are targets.
        context_patches: context patches C per image; None: all other patches.
    """

    def __init__(self, grid: Grid, ratio: float, context_patches: int | None) -> None:
        self.grid = grid
        patches = grid[0] * grid[1]
        self.target_patches = round(ratio * patches)
        if not 0 < self.target_patches < patches:
            missing = "targets" if self.target_patches == 0 else "context"
            raise ConfigError("masking.ratio", ratio, f"leaves no {missing} among {patches} patches")
        self.context_patches = resolve_context_patches(
            context_patches, patches - self.target_patches, f"a ratio of {ratio}"
        )

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` of ``step``'s global batch."""
        allowed = np.ones((len(positions), self.grid[0] * self.grid[1]), dtype=bool)
        targets = draw_patches(allowed, self.target_patches, seed, MaskStream.PLACEMENT, step, positions)
        np.put_along_axis(allowed, targets, False, axis=1)
        return build_masks(allowed, targets[:, None], seed, step, positions, self.context_patches)
