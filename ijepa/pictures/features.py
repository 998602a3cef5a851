"""The principal components of patch features, as colours."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ijepa.pictures.sheet import Grid, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def components(images: Tensor, named: dict[str, Tensor], grid: Grid) -> "Figure":
    """The three strongest principal components of patch features as red, green and blue, a row per image.

    What all images have in common at a place, their positions above all, is subtracted first: what is left tells the
    contents. The components are those of all the patches that are given, also of more images than are shown.

    Args:
        images: [B, C, H, W], shown beside, see `rgb`.
        named: features [M, N, D] by title, M >= B; of ``images`` first.
        grid: rows and columns of patches.
    """
    columns = [rgb(images)]
    columns += [_principal(features.float())[: len(images)].unflatten(1, grid).numpy() for features in named.values()]
    return sheet([list(row) for row in zip(*columns, strict=True)], ["image", *named])


def _principal(features: Tensor) -> Tensor:
    """[M, N, 3] in 0..1 from [M, N, D]: each component between its second and last but one percentile."""
    centred = features - features.mean(dim=0)
    flat = centred.flatten(0, 1)
    kept = min(3, flat.shape[1])
    _, vectors = torch.linalg.eigh((flat.T @ flat).double())  # ascending
    values = flat @ vectors[:, -kept:].flip(1).float()
    low, high = (torch.from_numpy(np.percentile(values.numpy(), q, axis=0)).float() for q in (2, 98))
    values = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    values = torch.nn.functional.pad(values, (0, 3 - kept))
    return values.unflatten(0, features.shape[:2])
