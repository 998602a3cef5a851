"""Multi-block masks (paper, section 3), without the reference implementation's bugs."""

from typing import Literal

import numpy as np

from ijepa.masking.common import Bools, Grid, Ints, Masks, Range, blocks_at, build_masks, interpolate, union
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import MaskStream, integers, uniforms

Surplus = Literal["drop", "keep"]
Size = tuple[int, int]
"""Height and width of a block, in patches."""
MAX_ATTEMPTS = 4096
MIN_ACCEPTANCE = 0.02
"""Minimum fraction of draws that must leave enough context patches (estimated on 512 draws); less is an error at
start-up. At this fraction, the probability that all `MAX_ATTEMPTS` draws fail is below 1e-35."""


class MultiBlock:
    """Several target blocks, and one context block minus the targets (paper, section 3 and figure 4).

    Block sizes are drawn once per step and shared by all images of the batch (scale and aspect ratio independently of
    each other); positions are drawn per image and per block, uniformly over those that fit in the grid. The context
    block has the proportions of the grid (on a square grid: aspect ratio 1, as published). If fewer than
    ``context_patches`` remain, the image's masks are drawn again; surplus patches are dropped at random.

    Args:
        grid: rows and columns of patches.
        num_targets: target blocks T per image.
        target_scale: range of a target block's area, as a fraction of the grid.
        target_aspect: range of a target block's height / width, in patches.
        context_scale: range of the context block's area, as a fraction of the grid.
        context_patches: context patches C per image (with ``surplus=keep``: the minimum); None:
            `default_context_patches`.
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
        self.context_patches = self.default_context_patches() if context_patches is None else context_patches
        self._validate_sizes(requested=context_patches)

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` [B] of ``step``'s global batch."""
        target_size, context_size = self.sizes(seed, step)
        corners = np.zeros((len(positions), self.num_targets, 2), dtype=np.int64)
        context_candidates = np.zeros((len(positions), *self.grid), dtype=bool)
        pending = np.arange(len(positions))
        for attempt in range(MAX_ATTEMPTS):
            drawn_corners, drawn_candidates = self._draw_blocks(
                seed, step, positions[pending], target_size, context_size, attempt
            )
            accepted = drawn_candidates.sum(axis=(1, 2)) >= self.context_patches
            corners[pending[accepted]] = drawn_corners[accepted]
            context_candidates[pending[accepted]] = drawn_candidates[accepted]
            pending = pending[~accepted]
            if not len(pending):
                break
        else:
            problem = f"no masks with {self.context_patches} context patches in {MAX_ATTEMPTS} draws"
            raise RuntimeError(f"{problem}; lower masking.context_patches")
        targets = blocks_at(corners, target_size, self.grid)
        return build_masks(context_candidates, targets, seed, step, positions, self._context_count())

    def sizes(self, seed: int, step: int) -> tuple[Size, Size]:
        """Size of this step's target blocks, and of its context block."""
        position = np.zeros(1, dtype=np.int64)  # one draw per step: position 0
        scale_u, aspect_u, context_u = uniforms(seed, MaskStream.SIZES, step, position, 3)[0]
        return (
            self._target_size(interpolate(self.target_scale, scale_u), interpolate(self.target_aspect, aspect_u)),
            self._context_size(interpolate(self.context_scale, context_u)),
        )

    def default_context_patches(self) -> int:
        """Default C: about what the reference keeps with 128 images per device.

        That is the smallest context of a batch, averaged over 32 batches; but at most what three quarters of the draws
        leave with the worst block sizes. Always seed 0, so that the model does not depend on the run's seed.
        """
        smallest = [self._context_counts(step, 128, *self.sizes(0, step)).min() for step in range(32)]
        worst = [self._context_counts(0, 256, *sizes) for sizes in self._worst_case_sizes()]
        feasible = min(_patches_left_by(0.75, counts) for counts in worst)
        return max(1, min(int(np.mean(smallest)), feasible))

    def _context_count(self) -> int | None:
        return self.context_patches if self.surplus == "drop" else None

    def _target_size(self, scale: float, aspect: float) -> Size:
        rows, columns = self.grid
        area = scale * rows * columns
        height = min(max(round((area * aspect) ** 0.5), 1), rows)
        width = min(max(round((area / aspect) ** 0.5), 1), columns)
        return height, width

    def _context_size(self, scale: float) -> Size:
        rows, columns = self.grid
        return max(round(rows * scale**0.5), 1), max(round(columns * scale**0.5), 1)

    def _draw_blocks(
        self, seed: int, step: int, positions: Ints, target_size: Size, context_size: Size, attempt: int
    ) -> tuple[Ints, Bools]:
        """One draw: corners of the target blocks [B, T, 2], and the context block minus the targets [B, H, W]."""
        count = self.num_targets
        drawn = uniforms(seed, MaskStream.PLACEMENT + attempt, step, positions, 2 * count + 2).reshape(-1, count + 1, 2)
        target_positions = np.array([self.grid[0] - target_size[0] + 1, self.grid[1] - target_size[1] + 1])
        context_positions = np.array([self.grid[0] - context_size[0] + 1, self.grid[1] - context_size[1] + 1])
        corners = integers(drawn[:, :count], target_positions)
        context_candidates = union(integers(drawn[:, count:], context_positions), context_size, self.grid)
        context_candidates &= ~union(corners, target_size, self.grid)
        return corners, context_candidates

    def _context_counts(self, step: int, images: int, target_size: Size, context_size: Size) -> Ints:
        """The number of context patches that one draw with seed 0 leaves in each of ``images`` images: [images]."""
        _, context_candidates = self._draw_blocks(0, step, np.arange(images), target_size, context_size, 0)
        return context_candidates.sum(axis=(1, 2))

    def _worst_case_sizes(self) -> list[tuple[Size, Size]]:
        """The largest target sizes (those that fit into no other), each with the smallest context block."""
        aspects = np.linspace(*self.target_aspect, 65)
        sizes = {self._target_size(self.target_scale[1], aspect) for aspect in aspects}
        largest = [a for a in sizes if not any(a != b and a[0] <= b[0] and a[1] <= b[1] for b in sizes)]
        return [(size, self._context_size(self.context_scale[0])) for size in sorted(largest)]

    def _validate_sizes(self, requested: int | None) -> None:
        for target_size, context_size in self._worst_case_sizes():
            counts = self._context_counts(0, 512, target_size, context_size)
            sizes = (
                f"{self.num_targets} target blocks of {target_size[0]}x{target_size[1]} and a context block of "
                f"{context_size[0]}x{context_size[1]} on a {self.grid[0]}x{self.grid[1]} grid of patches"
            )
            available = _patches_left_by(0.25, counts)  # a quarter of the draws leave this many: redrawing stays cheap
            if available < 1:
                raise ConfigError(
                    "masking.target_scale",
                    self.target_scale,
                    f"{sizes} rarely leave any context; lower masking.target_scale, masking.num_targets "
                    f"(now {self.num_targets}) or model.patch_size",
                )
            if (counts >= self.context_patches).mean() < MIN_ACCEPTANCE:
                raise ConfigError(
                    "masking.context_patches",
                    requested,
                    f"{sizes} hardly ever leave that many; try at most {available}",
                )


def _patches_left_by(fraction: float, counts: Ints) -> int:
    """The number of context patches that at least ``fraction`` of the draws, with ``counts`` patches, leave."""
    return int(np.quantile(counts, 1 - fraction, method="lower"))
