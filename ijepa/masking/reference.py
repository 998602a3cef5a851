"""The reference implementation's sampler, bugs included, for comparisons."""

import math

import numpy as np
import torch
from torch import Tensor

from ijepa.masking.common import Grid, Ints, Masks, Range, interpolate
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import MaskStream, seed_of


class Reference:
    """The reference implementation's sampler, bug for bug (docs/masking.md lists the bugs).

    Every image's context indices are truncated, in row-major order, to the shortest context of the batch, so masks
    depend on the batch. Block sizes depend only on the step, not on the seed, as in the reference. Corners depend on
    (seed, step, first position); the reference uses the process's global generator.

    Args:
        grid: rows and columns of patches.
        num_targets: target blocks T per image.
        target_scale: range of a target block's area, as a fraction of the grid.
        target_aspect: range of a target block's height / width, in patches.
        context_scale: range of the context block's area, as a fraction of the grid.
        min_keep: blocks must have more patches than this.

    Raises:
        ConfigError: if a block can have ``min_keep`` patches or fewer: the reference would loop forever.
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
        sizes = {self._size(float(share), target_scale, target_aspect) for share in np.linspace(0, 1, 1025)}
        height, width = min(sizes, key=math.prod)
        if height * width <= min_keep:
            problem = f"the reference loops forever on target blocks of {height}x{width}; try {height * width - 1}"
            raise ConfigError("masking.min_keep", min_keep, problem)
        smallest = min(
            math.prod(self._size(float(share), context_scale, (1.0, 1.0))) for share in np.linspace(0, 1, 65)
        )
        if smallest <= min_keep:
            problem = f"the reference loops forever on context blocks of {smallest} patches; try {smallest - 1}"
            raise ConfigError("masking.min_keep", min_keep, problem)
        draws = [self.sample(0, step, np.arange(128)).context.shape[1] for step in range(4)]
        self.context_patches = round(float(np.mean(draws)))  # printed at start-up; it varies from step to step

    def sample(self, seed: int, step: int, positions: Ints) -> Masks:
        """The masks of the images at ``positions`` [B], which must be the whole batch of a device."""
        generator = torch.Generator().manual_seed(seed_of(seed, MaskStream.PLACEMENT, step, int(positions[0])))
        return self.draw(step, len(positions), generator)

    def draw(self, step: int, batch: int, generator: torch.Generator) -> Masks:
        """The masks of ``batch`` images; sizes depend on ``step``, corners are drawn from ``generator``."""
        sizes = torch.Generator().manual_seed(step)
        target = self._size(torch.rand(1, generator=sizes).item(), self.target_scale, self.target_aspect)
        context = self._size(torch.rand(1, generator=sizes).item(), self.context_scale, (1.0, 1.0))
        contexts, targets = [], []
        for _ in range(batch):
            blocks = [self._block(target, [], generator) for _ in range(self.num_targets)]
            targets.append([block.flatten().nonzero()[:, 0] for block in blocks])
            contexts.append(self._block(context, [~block for block in blocks], generator).flatten().nonzero()[:, 0])
        shortest = min(len(indices) for indices in contexts)
        return Masks(
            context=torch.stack([indices[:shortest] for indices in contexts]),
            targets=torch.stack([torch.stack(blocks) for blocks in targets]),
        )

    def _size(self, fraction: float, scale: Range, aspect: Range) -> Grid:
        """A block's height and width, always smaller than the grid; one number determines both scale and aspect."""
        area = int(self.grid[0] * self.grid[1] * interpolate(scale, fraction))
        ratio = interpolate(aspect, fraction)
        height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        return min(height, self.grid[0] - 1), min(width, self.grid[1] - 1)

    def _block(self, size: Grid, allowed: list[Tensor], generator: torch.Generator) -> Tensor:
        """A block within ``allowed``; after every 20 failed tries, one constraint is dropped."""
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
