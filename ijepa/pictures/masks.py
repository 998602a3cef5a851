"""Context and targets as the paper draws them."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ijepa.masking import Masks
from ijepa.pictures.sheet import HIDDEN, Grid, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def masks(images: Tensor, chosen: Masks, patch_size: int) -> "Figure":
    """Image, context, and each target block, a row per image (as in the paper's figure 4).

    Args:
        images: [B, C, H, W], see `rgb`.
        chosen: the masks of these images.
        patch_size: side of a patch in pixels.
    """
    grid = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    blocks = chosen.targets.shape[1]
    rows = []
    for index, picture in enumerate(rgb(images)):
        context = chosen.context[index]
        if chosen.valid is not None:
            context = context[chosen.valid[index]]
        parts = [context, *chosen.targets[index]]
        rows.append([picture, *(_only(picture, part, grid, patch_size) for part in parts)])
    targets = [f"target {number}" for number in range(1, blocks + 1)] if blocks > 1 else ["target"]
    return sheet(rows, ["image", "context", *targets])


def _only(picture: NDArray[np.float32], part: Tensor, grid: Grid, patch_size: int) -> NDArray[np.float32]:
    """The picture [H, W, 3] where the patches of ``part`` are, grey elsewhere."""
    seen = np.zeros(grid[0] * grid[1], dtype=bool)
    seen[part.numpy()] = True
    mask = seen.reshape(grid).repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(mask, picture, np.float32(HIDDEN))
