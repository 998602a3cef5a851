"""Context and target masks: multi-block (paper, section 3), rasterized, block and random (paper, table 6).

What an image gets is a function of (seed, step, position in the global batch) alone: not of the other images in its
batch, nor of the number of workers or ranks. The size of the blocks is drawn once per step, as published.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ijepa.errors import ConfigError
from ijepa.randomness import integers, uniforms, words

Grid = tuple[int, int]
Range = tuple[float, float]
Surplus = Literal["drop", "keep"]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Streams of random numbers; attempt a at placing the blocks of an image draws from PLACES + a.
SIZES, SURPLUS, PLACES = 1, 2, 16
MAX_ATTEMPTS = 4096
MIN_ACCEPTANCE = 0.02
"""A block size of which fewer draws than this leave enough context is refused at start-up; above it, the chance that
`MAX_ATTEMPTS` draws all fail is below 1e-35."""


class Masks(NamedTuple):
    """Indices of patches in row order, for one batch.

    context: [B, C] int64, ascending; padded with 0 where ``valid`` is False.
    targets: [B, T, K] int64, ascending in each block.
    valid: [B, C] bool, or None when no image is padded.
    """

    context: Tensor
    targets: Tensor
    valid: Tensor | None = None


class Masking(Protocol):
    """Draws the masks of the images at ``positions`` of the global batch of ``step``."""

    context_patches: int

    def sample(self, seed: int, step: int, positions: Ints) -> Masks: ...


class MultiBlock:
    """Several target blocks and one context block without them (paper, section 3 and figure 4).

    Scale and aspect ratio are drawn independently and every corner that keeps a block inside the grid is equally
    likely. The context has the grid's own proportions (on a square grid: aspect ratio 1, as published). An image that
    keeps fewer than ``context_patches`` is drawn again, surplus patches are dropped at random.

    Args:
        grid: patches per column and per row.
        num_targets: target blocks T per image.
        target_scale: area of a target block, as a share of the grid.
        target_aspect: height / width of a target block, in patches.
        context_scale: area of the context block, as a share of the grid.
        context_patches: context patches C per image (with ``surplus=keep``: at least); None for `typical_context`.
        surplus: ``drop`` to C patches, or ``keep`` all, padded.

    Raises:
        ConfigError: when some block size leaves too little context, or none.
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
        self._refuse_impossible(asked=context_patches)

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` of ``step``'s global batch."""
        target, context = self.sizes(seed, step)
        corners = np.zeros((len(positions), self.num_targets, 2), dtype=np.int64)
        allowed = np.zeros((len(positions), *self.grid), dtype=bool)
        pending = np.arange(len(positions))
        for attempt in range(MAX_ATTEMPTS):
            places, left = self._place(seed, step, positions[pending], target, context, attempt)
            enough = left.sum(axis=(1, 2)) >= self.context_patches
            corners[pending[enough]] = places[enough]
            allowed[pending[enough]] = left[enough]
            pending = pending[~enough]
            if not len(pending):
                break
        else:
            raise RuntimeError(f"no masks with {self.context_patches} context patches in {MAX_ATTEMPTS} draws")
        return _masks(allowed, _blocks(corners, target, self.grid), seed, step, positions, self._constant())

    def sizes(self, seed: int, step: int) -> tuple[Grid, Grid]:
        """Height and width, in patches, of this step's target blocks and context block."""
        scale, aspect, context = uniforms(seed, SIZES, step, np.zeros(1, dtype=np.int64), 3)[0]
        return (
            self._target_size(_inside(self.target_scale, scale), _inside(self.target_aspect, aspect)),
            self._context_size(_inside(self.context_scale, context)),
        )

    def typical_context(self) -> int:
        """About what the reference keeps at 128 images per device, averaged over steps.

        There, every image of a batch is cut to the smallest context in it: the mean over block sizes of the least of
        128 images. A constant of the configuration: it does not depend on the run's seed.
        """
        smallest = [
            self._place(0, step, np.arange(128), *self.sizes(0, step), 0)[1].sum(axis=(1, 2)).min()
            for step in range(32)
        ]
        feasible = min(self._quantile(target, context) for target, context in self._extreme_sizes())
        return max(1, min(int(np.mean(smallest)), feasible))

    def _constant(self) -> int | None:
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

    def _place(
        self, seed: int, step: int, positions: Ints, target: Grid, context: Grid, attempt: int
    ) -> tuple[Ints, Bools]:
        """One draw: the targets' corners [B, T, 2] and the patches that are left for the context [B, H, W]."""
        count = self.num_targets
        drawn = uniforms(seed, PLACES + attempt, step, positions, 2 * count + 2).reshape(-1, count + 1, 2)
        target_free = np.array([self.grid[0] - target[0] + 1, self.grid[1] - target[1] + 1])
        context_free = np.array([self.grid[0] - context[0] + 1, self.grid[1] - context[1] + 1])
        corners = integers(drawn[:, :count], target_free)
        left = _union(integers(drawn[:, count:], context_free), context, self.grid)
        left &= ~_union(corners, target, self.grid)
        return corners, left

    def _extreme_sizes(self) -> list[tuple[Grid, Grid]]:
        """Every attainable target size that no other one contains, with the smallest context."""
        aspects = np.linspace(*self.target_aspect, 65)
        sizes = {self._target_size(self.target_scale[1], aspect) for aspect in aspects}
        largest = [a for a in sizes if not any(a != b and a[0] <= b[0] and a[1] <= b[1] for b in sizes)]
        return [(size, self._context_size(self.context_scale[0])) for size in sorted(largest)]

    def _quantile(self, target: Grid, context: Grid, share: float = 0.75) -> int:
        """The context that at least ``share`` of the draws with these sizes leave."""
        left = self._place(0, 0, np.arange(256), target, context, 0)[1].sum(axis=(1, 2))
        return int(np.quantile(left, 1 - share, method="lower"))

    def _refuse_impossible(self, asked: int | None) -> None:
        for target, context in self._extreme_sizes():
            left = self._place(0, 0, np.arange(512), target, context, 0)[1].sum(axis=(1, 2))
            sizes = (
                f"{self.num_targets} target blocks of {target[0]}x{target[1]} and a context block of "
                f"{context[0]}x{context[1]} on a {self.grid[0]}x{self.grid[1]} grid of patches"
            )
            possible = int(np.quantile(left, 0.75, method="lower"))
            if possible < 1:
                raise ConfigError(
                    "masking.target_scale",
                    self.target_scale,
                    f"{sizes} leave no context; lower it, or masking.num_targets={self.num_targets}",
                )
            if (left >= self.context_patches).mean() < MIN_ACCEPTANCE:
                raise ConfigError(
                    "masking.context_patches", asked, f"{sizes} hardly ever leave so many; at most {possible} would do"
                )


class Rasterized:
    """One quadrant is the context, the three others are the targets (paper, table 6).

    A quadrant of an odd grid is half a patch short of its half: the split falls on either side of the middle and the
    blocks lie anywhere in their quadrants, so that every row and column is reached.

    Args:
        grid: patches per column and per row, at least 2 each.
        context_patches: context patches C per image; None for the whole quadrant.
    """

    def __init__(self, grid: Grid, context_patches: int | None) -> None:
        if min(grid) < 2:
            raise ConfigError("masking.name", "rasterized", f"a {grid[0]}x{grid[1]} grid of patches has no quadrants")
        self.grid = grid
        self.size = grid[0] // 2, grid[1] // 2
        self.context_patches = _at_most(context_patches, self.size[0] * self.size[1], "a quadrant")

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` of ``step``'s global batch."""
        drawn = uniforms(seed, PLACES, step, positions, 11)
        sizes, grid = np.array(self.size), np.array(self.grid)
        split = sizes + integers(drawn[:, :2], grid - 2 * sizes + 1)  # [B, 2] rows and columns of the first quadrant
        quadrants = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        start = quadrants * split[:, None]  # [B, 4, 2]
        extent = np.where(quadrants, (grid - split)[:, None], split[:, None])
        corners = start + integers(drawn[:, 2:10].reshape(-1, 4, 2), extent - sizes + 1)
        chosen = integers(drawn[:, 10], 4)
        others = np.array([[q for q in range(4) if q != c] for c in range(4)])[chosen]  # [B, 3]
        images = np.arange(len(positions))[:, None]
        allowed = _union(corners[images, chosen[:, None]], self.size, self.grid)
        targets = _blocks(corners[images, others], self.size, self.grid)
        return _masks(allowed, targets, seed, step, positions, self.context_patches)


class Random:
    """Patches drawn without structure: one target set, the rest is the context (paper, table 6).

    Args:
        grid: patches per column and per row.
        ratio: share of the patches that are targets.
        context_patches: context patches C per image; None for all the others.
    """

    def __init__(self, grid: Grid, ratio: float, context_patches: int | None) -> None:
        self.grid = grid
        patches = grid[0] * grid[1]
        self.target_patches = round(ratio * patches)
        if not 0 < self.target_patches < patches:
            missing = "targets" if self.target_patches == 0 else "context"
            raise ConfigError("masking.ratio", ratio, f"leaves no {missing} among {patches} patches")
        self.context_patches = _at_most(context_patches, patches - self.target_patches, f"a ratio of {ratio}")

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` of ``step``'s global batch."""
        order = np.argsort(words(seed, PLACES, step, positions, self.grid[0] * self.grid[1]), axis=1, kind="stable")
        targets = np.sort(order[:, : self.target_patches], axis=1)
        allowed = np.ones((len(positions), self.grid[0] * self.grid[1]), dtype=bool)
        np.put_along_axis(allowed, targets, False, axis=1)
        return _masks(allowed, targets[:, None], seed, step, positions, self.context_patches)


class Reference:
    """The reference implementation's sampler, bug for bug (the faults are listed in docs/masking.md).

    Every image's indices are cut, in row order, to the shortest of its batch: what an image gets depends on the batch.
    The block size comes from the step alone, whatever the seed, as in the reference; the corners from (seed, step,
    first position), where the reference goes on with the process's global generator.

    Raises:
        ConfigError: when some block size has no more than ``min_keep`` patches, where the reference never ends.
    """

    def __init__(
        self,
        grid: Grid,
        num_targets: int,
        target_scale: Range,
        target_aspect: Range,
        context_scale: Range,
        min_keep: int,
    ) -> None:
        self.grid = grid
        self.num_targets = num_targets
        self.target_scale = target_scale
        self.target_aspect = target_aspect
        self.context_scale = context_scale
        self.min_keep = min_keep
        for share in np.linspace(0, 1, 1025):
            height, width = self._size(float(share), target_scale, target_aspect)
            if height * width <= min_keep:
                problem = f"the reference never ends on target blocks of {height}x{width}; a smaller value would do"
                raise ConfigError("masking.min_keep", min_keep, problem)
        draws = [self.sample(0, step, np.arange(128)).context.shape[1] for step in range(4)]
        self.context_patches = round(float(np.mean(draws)))  # stated at start-up; it varies from step to step

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions``, which must be the whole batch of a device."""
        first = words(seed, PLACES, step, positions[:1], 2)[0]
        generator = torch.Generator().manual_seed((int(first[0]) << 31) ^ int(first[1]))
        return self.draw(step, len(positions), generator)

    def draw(self, step: int, batch: int, generator: torch.Generator) -> Masks:
        """``batch`` images with sizes from ``step`` and corners from ``generator``."""
        sizes = torch.Generator().manual_seed(step)
        target = self._size(torch.rand(1, generator=sizes).item(), self.target_scale, self.target_aspect)
        context = self._size(torch.rand(1, generator=sizes).item(), self.context_scale, (1.0, 1.0))
        contexts, targets = [], []
        for _ in range(batch):
            blocks = [self._block(target, [], generator) for _ in range(self.num_targets)]
            targets.append([block.flatten().nonzero()[:, 0] for block in blocks])
            contexts.append(self._block(context, [~block for block in blocks], generator).flatten().nonzero()[:, 0])
        kept = min(len(indices) for indices in contexts)
        return Masks(
            context=torch.stack([indices[:kept] for indices in contexts]),
            targets=torch.stack([torch.stack(blocks) for blocks in targets]),
        )

    def _size(self, share: float, scale: Range, aspect: Range) -> Grid:
        """Scale and aspect ratio from the same number; always smaller than the grid."""
        area = int(self.grid[0] * self.grid[1] * _inside(scale, share))
        ratio = _inside(aspect, share)
        height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        return min(height, self.grid[0] - 1), min(width, self.grid[1] - 1)

    def _block(self, size: Grid, allowed: list[Tensor], generator: torch.Generator) -> Tensor:
        """A block within ``allowed``; after 20 tries that keep too little, one constraint fewer."""
        attempt = 0
        while True:
            top = torch.randint(0, self.grid[0] - size[0], (1,), generator=generator).item()
            left = torch.randint(0, self.grid[1] - size[1], (1,), generator=generator).item()
            block = torch.zeros(self.grid, dtype=torch.bool)
            block[top : top + size[0], left : left + size[1]] = True
            for region in allowed[: max(len(allowed) - attempt // 20, 0)]:
                block &= region
            if block.sum() > self.min_keep:
                return block
            attempt += 1


def _inside(limits: Range, share: float) -> float:
    return float(limits[0] + share * (limits[1] - limits[0]))


def _at_most(asked: int | None, possible: int, source: str) -> int:
    if asked is not None and asked > possible:
        raise ConfigError("masking.context_patches", asked, f"{source} leaves {possible}; at most {possible} would do")
    return possible if asked is None else asked


def _union(corners: Ints, size: Grid, grid: Grid) -> Bools:
    """What blocks of ``size`` at ``corners`` [B, T, 2] cover together: [B, H, W]."""
    rows, columns = (
        (np.arange(grid[axis]) - corners[:, :, axis, None]).view(np.uint64) < np.uint64(size[axis])  # negative: huge
        for axis in range(2)
    )
    covered = rows[:, 0, :, None] & columns[:, 0, None, :]
    for block in range(1, corners.shape[1]):
        covered |= rows[:, block, :, None] & columns[:, block, None, :]
    return covered


def _blocks(corners: Ints, size: Grid, grid: Grid) -> Ints:
    """Blocks of ``size`` at ``corners`` [B, T, 2] as indices [B, T, K]."""
    offsets = (np.arange(size[0])[:, None] * grid[1] + np.arange(size[1])).ravel()
    return corners[..., :1] * grid[1] + corners[..., 1:] + offsets


def _masks(allowed: Bools, targets: Ints, seed: int, step: int, positions: Ints, keep: int | None) -> Masks:
    """``keep`` of the allowed patches of each image at random, or (None) all of them, padded."""
    allowed = allowed.reshape(len(allowed), -1)
    if keep is not None:
        # A random word above, the patch's index below: sorting integers is several times faster than argpartition.
        keys = words(seed, SURPLUS, step, positions, allowed.shape[1]).astype(np.int64) << 31
        keys |= np.arange(allowed.shape[1])
        keys[~allowed] = np.iinfo(np.int64).max
        context = np.sort(np.partition(keys, keep - 1, axis=1)[:, :keep] & 0x7FFFFFFF, axis=1)
        return Masks(torch.from_numpy(context), torch.from_numpy(targets))
    count = allowed.sum(axis=1)
    context = np.argsort(~allowed, axis=1, kind="stable")[:, : count.max()]
    valid = np.arange(count.max()) < count[:, None]
    context[~valid] = 0
    return Masks(torch.from_numpy(context), torch.from_numpy(targets), torch.from_numpy(valid))


SAMPLERS: dict[str, Callable[..., Masking]] = {
    "multiblock": MultiBlock,
    "rasterized": Rasterized,
    "random": Random,
    "reference": Reference,
}
