"""Multi-block masks (paper, section 3), without the reference implementation's bugs."""

from typing import Literal

import numpy as np

from ijepa.masking.common import Bools, Grid, Ints, Masks, Range, blocks_at, build_masks, interpolate, union
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import MaskStream, integers, uniforms

Surplus = Literal["drop", "keep"]
MAX_ATTEMPTS = 4096
MIN_ACCEPTANCE = 0.02
"""Minimum fraction of draws that must leave enough context patches; less is an error at start-up. At this fraction, the
probability that all `MAX_ATTEMPTS` draws fail is below 1e-35."""


class MultiBlock:
    """Several target blocks, and one context block minus the targets (paper, section 3 and figure 4).

    Scale and aspect ratio are drawn independently, and all positions of a block inside the grid are equally likely.
    The context block has the proportions of the grid (on a square grid: aspect ratio 1, as published). If fewer than
    ``context_patches`` remain, the image's masks are drawn again; surplus patches are dropped at random.

    Args:
        grid: rows and columns of patches.
        num_targets: target blocks T per image.
        target_scale: range of a target block's area, as a fraction of the grid.
        target_aspect: range of a target block's height / width, in patches.
        context_scale: range of the context block's area, as a fraction of the grid.
        context_patches: context patches C per image (with ``surplus=keep``: the minimum); None: `typical_context`.
        surplus: ``drop`` surplus patches, or ``keep`` all, with padding.

    Raises:
        ConfigError: if a block size leaves too few context patches, or none.
    """

    def __init__(
        self,
        grid: Grid,
        num_targets: int,
        target_scale: Range,
        target_aspect: Range,
        context_scale: Range,
        context_patches: int | None,
        surplus: Surplus,
    ) -> None:
        self.grid = grid
        self.num_targets = num_targets
        self.target_scale = target_scale
        self.target_aspect = target_aspect
        self.context_scale = context_scale
        self.surplus = surplus
        self.context_patches = self.typical_context() if context_patches is None else context_patches
        self._validate_sizes(requested=context_patches)

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` [B] of ``step``'s global batch."""
        target, context = self.sizes(seed, step)
        corners = np.zeros((len(positions), self.num_targets, 2), dtype=np.int64)
        allowed = np.zeros((len(positions), *self.grid), dtype=bool)
        pending = np.arange(len(positions))
        for attempt in range(MAX_ATTEMPTS):
            block_corners, remaining = self._draw_blocks(seed, step, positions[pending], target, context, attempt)
            is_enough = remaining.sum(axis=(1, 2)) >= self.context_patches
            corners[pending[is_enough]] = block_corners[is_enough]
            allowed[pending[is_enough]] = remaining[is_enough]
            pending = pending[~is_enough]
            if not len(pending):
                break
        else:
            raise RuntimeError(f"no masks with {self.context_patches} context patches in {MAX_ATTEMPTS} draws")
        return build_masks(allowed, blocks_at(corners, target, self.grid), seed, step, positions, self._context_count())

    def sizes(self, seed: int, step: int) -> tuple[Grid, Grid]:
        """Height and width, in patches, of this step's target blocks and context block."""
        scale, aspect, context = uniforms(seed, MaskStream.SIZES, step, np.zeros(1, dtype=np.int64), 3)[0]
        return (
            self._target_size(interpolate(self.target_scale, scale), interpolate(self.target_aspect, aspect)),
            self._context_size(interpolate(self.context_scale, context)),
        )

    def typical_context(self) -> int:
        """About the number of context patches of the reference implementation with 128 images per device.

        The reference truncates all images of a batch to the smallest context in the batch. This is the minimum over 128
        images, averaged over 32 steps of seed 0, so it does not depend on the run's seed.
        """
        smallest = [
            self._draw_blocks(0, step, np.arange(128), *self.sizes(0, step), 0)[1].sum(axis=(1, 2)).min()
            for step in range(32)
        ]
        feasible = min(self._context_quantile(target, context) for target, context in self._extreme_sizes())
        return max(1, min(int(np.mean(smallest)), feasible))

    def _context_count(self) -> int | None:
        return self.context_patches if self.surplus == "drop" else None

    def _target_size(self, scale: float, aspect: float) -> Grid:
        rows, columns = self.grid
        area = scale * rows * columns
        height = min(max(round((area * aspect) ** 0.5), 1), rows)
        width = min(max(round((area / aspect) ** 0.5), 1), columns)
        return height, width

    def _context_size(self, scale: float) -> Grid:
        rows, columns = self.grid
        return max(round(rows * scale**0.5), 1), max(round(columns * scale**0.5), 1)

    def _draw_blocks(
        self, seed: int, step: int, positions: Ints, target: Grid, context: Grid, attempt: int
    ) -> tuple[Ints, Bools]:
        """One draw: corners of the target blocks [B, T, 2], and the remaining context patches [B, H, W]."""
        count = self.num_targets
        drawn = uniforms(seed, MaskStream.PLACEMENT + attempt, step, positions, 2 * count + 2).reshape(-1, count + 1, 2)
        target_free = np.array([self.grid[0] - target[0] + 1, self.grid[1] - target[1] + 1])
        context_free = np.array([self.grid[0] - context[0] + 1, self.grid[1] - context[1] + 1])
        corners = integers(drawn[:, :count], target_free)
        remaining = union(integers(drawn[:, count:], context_free), context, self.grid)
        remaining &= ~union(corners, target, self.grid)
        return corners, remaining

    def _extreme_sizes(self) -> list[tuple[Grid, Grid]]:
        """The largest target sizes (those that fit into no other), each with the smallest context block."""
        aspects = np.linspace(*self.target_aspect, 65)
        sizes = {self._target_size(self.target_scale[1], aspect) for aspect in aspects}
        largest = [a for a in sizes if not any(a != b and a[0] <= b[0] and a[1] <= b[1] for b in sizes)]
        return [(size, self._context_size(self.context_scale[0])) for size in sorted(largest)]

    def _context_quantile(self, target: Grid, context: Grid, fraction: float = 0.75) -> int:
        """The number of context patches that at least ``fraction`` of the draws with these sizes leave."""
        remaining = self._draw_blocks(0, 0, np.arange(256), target, context, 0)[1].sum(axis=(1, 2))
        return int(np.quantile(remaining, 1 - fraction, method="lower"))

    def _validate_sizes(self, requested: int | None) -> None:
        for target, context in self._extreme_sizes():
            remaining = self._draw_blocks(0, 0, np.arange(512), target, context, 0)[1].sum(axis=(1, 2))
            sizes = (
                f"{self.num_targets} target blocks of {target[0]}x{target[1]} and a context block of "
                f"{context[0]}x{context[1]} on a {self.grid[0]}x{self.grid[1]} grid of patches"
            )
            available = int(np.quantile(remaining, 0.75, method="lower"))
            if available < 1:
                raise ConfigError(
                    "masking.target_scale",
                    self.target_scale,
                    f"{sizes} leave no context; lower it, masking.num_targets={self.num_targets} or model.patch_size",
                )
            if (remaining >= self.context_patches).mean() < MIN_ACCEPTANCE:
                raise ConfigError(
                    "masking.context_patches",
                    requested,
                    f"{sizes} hardly ever leave that many; try at most {available}",
                )
