"""Figures of patch features: principal components as colours, and similarity to one patch."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.pictures.sheet import Grid, bar, heat, mark, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_IMAGES = 8
"""With fewer images, the mean at a position would contain much of each image."""
MOST_SHIFTS = 4
"""Shifts by a part of a patch in `fine_scores`, in each direction."""


def components(images: Tensor, named: dict[str, Callable[[Tensor], Tensor]], grid: Grid, shown: int = 4) -> "Figure":
    """The first three principal components of patch features as red, green and blue, a row per image.

    Args:
        images: [M, C, H, W], see `rgb`; components are computed from all, and the first are shown.
        named: gives features [B, N, D] of images, by title; for example a `PretrainedEncoder`.
        grid: rows and columns of patches.
        shown: number of images to show.
    """
    values = {}
    with torch.no_grad():
        for title, embed in named.items():
            found = components_of(embed(images))
            (scores,) = fine_scores(_alone(embed), images[:shown], grid, [found])
            values[title] = stretched(scores)
    return colours(images[:shown], values, fine_grid(grid, images.shape[-2]))


def _alone(embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], list[Tensor]]:
    return lambda images: [embed(images)]


def colours(images: Tensor, named: dict[str, Tensor], grid: Grid) -> "Figure":
    """Images and the colours of their patches, a row per image.

    Args:
        images: [B, C, H, W], see `rgb`.
        named: colours [M, N, 3] in 0..1 by title, M >= B; the first B belong to ``images``.
        grid: rows and columns of patches, or of what has colours.
    """
    pictures = rgb(images)
    columns = [values[: len(images)].unflatten(1, grid).numpy() for values in named.values()]
    rows = [[pictures[index], *(column[index] for column in columns)] for index in range(len(images))]
    figure, axes = sheet(rows, ["image", *named])
    for axis in axes[:, 1:].flat:
        axis.images[0].set_interpolation("nearest")
    return figure


def similarity(
    images: Tensor, features: Tensor, grid: Grid, queries: Sequence[Grid], of: int | None = None
) -> "Figure":
    """Cosine similarity of query patches to all patches, a row per image; the query patches are marked.

    The mean at each position is subtracted first, see `centred`. Otherwise position dominates, and the figure shows
    only a blob around the query patch, even with random weights.

    Args:
        images: [B, C, H, W], see `rgb`.
        features: [M, N, D], M >= B; the first B belong to ``images``.
        grid: rows and columns of patches.
        queries: row and column of each query patch; one column of the figure each.
        of: index of the image whose query patches are used for all images; None: each image's own.
    """
    pictures, patch_size = rgb(images), images.shape[-2] // grid[0]
    maps = similarities(features, grid, queries, of)[: len(images)].numpy()  # [B, Q, h, w]
    rows = [[picture] * (1 + len(queries)) for picture in pictures]
    titles = ["image", *("similarity" if len(queries) == 1 else f"to patch {n + 1}" for n in range(len(queries)))]
    figure, axes = sheet(rows, titles, below=0.42)
    limits = (float(np.floor(10 * np.percentile(maps, 2)) / 10), 1.0)
    for row in range(len(rows)):
        has_queries = of is None or row == of
        for column, query in enumerate(queries, 1):
            last_map = heat(axes[row, column], maps[row, column - 1], pictures[row], limits)
            if has_queries:
                mark(axes[row, column], query, patch_size)
                mark(axes[row, 0], query, patch_size)
    bar(figure, last_map, list(axes.flat), "cosine similarity", "min")
    return figure


def similarities(features: Tensor, grid: Grid, queries: Sequence[Grid], of: int | None = None) -> Tensor:
    """The cosine similarities that `similarity` shows: [M, Q, h, w]."""
    unit = F.normalize(centred(features.float()), dim=-1)  # [M, N, D]
    indices = [row * grid[1] + column for row, column in queries]
    query_features = (
        unit[:, indices] if of is None else unit[of : of + 1, indices].expand(len(unit), -1, -1)
    )  # [M, Q, D]
    return (query_features @ unit.transpose(1, 2)).unflatten(2, grid)


class Components(NamedTuple):
    """Three principal components of features.

    mean: [N, D] or [D], subtracted first.
    axes: [D, 3]; scores have unit variance.
    """

    mean: Tensor
    axes: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """The scores [M, N, 3] of features [M, N, D]."""
        return (features.float() - self.mean).nan_to_num(0, 0, 0) @ self.axes


class Colours:
    """Principal components of the same images' patches along a run, as colours that stay comparable.

    From step to step, components may change their order or sign, or rotate: all of these are equivalent. So the
    three whitened scores of each patch are aligned with those of the previous picture by the closest orthogonal matrix
    (orthogonal Procrustes, Schönemann 1966). If colours still change, the features have changed.

    Attributes:
        reference: [M, N, 3], the aligned scores of the last picture; None before the first.
    """

    def __init__(self) -> None:
        self.reference: Tensor | None = None

    def __call__(self, features: Tensor, finely: Callable[[Components], Tensor] | None = None) -> Tensor:
        """The colours [M, N, 3] in 0..1 of the next picture's features [M, N, D]; updates `reference`.

        ``finely``: gives other scores [B, K, 3] for the same components, from `fine_scores`; then those are coloured.
        """
        found = components_of(features)
        aligned = found(features)
        turn = torch.eye(3)
        if self.reference is not None and self.reference.shape == aligned.shape:
            turn = rotation(aligned, self.reference)
        self.reference = aligned @ turn
        return stretched(self.reference if finely is None else finely(found) @ turn)


def centred(features: Tensor) -> Tensor:
    """Features [M, N, D] minus their mean over images at each position, which mostly encodes the position.

    With fewer than `MIN_IMAGES` images, minus the mean of all patches.
    """
    return features - means(features)


def means(features: Tensor) -> Tensor:
    """What `centred` subtracts from features [M, N, D]: [N, D] or [D]."""
    return features.mean(dim=0) if len(features) >= MIN_IMAGES else features.mean(dim=(0, 1))


def components_of(features: Tensor) -> Components:
    """The first three principal components of `centred` features [M, N, D]."""
    flat = centred(features.float()).flatten(0, 1).nan_to_num(0, 0, 0)  # diverging runs are drawn, too
    count = min(3, flat.shape[1])
    _, vectors = torch.linalg.eigh((flat.T @ flat).double())  # ascending
    axes = vectors[:, -count:].flip(1).float()
    axes = axes / (flat @ axes).square().mean(dim=0).sqrt().clamp_min(1e-12)
    return Components(means(features.float()), F.pad(axes, (0, 3 - count)))


def fine_grid(grid: Grid, height: int) -> Grid:
    """``grid`` with each of its patches in images of ``height`` divided into s x s parts.

    s is the largest divisor of a patch's side up to `MOST_SHIFTS`.
    """
    side = height // grid[0]
    parts = max(count for count in range(1, min(MOST_SHIFTS, side) + 1) if side % count == 0)
    return grid[0] * parts, grid[1] * parts


def fine_scores(
    embed: Callable[[Tensor], Sequence[Tensor]], images: Tensor, grid: Grid, components: Sequence[Components]
) -> list[Tensor]:
    """Scores at a part of a patch: their mean over images that are shifted by parts of a patch, shifted back.

    A patch's features also depend on how the grid cuts the objects; the mean over shifts does not.

    Args:
        embed: gives features [B, N, D] of images, one for each of ``components``; called once for each shift.
        images: [B, C, H, W].
        grid: h rows and w columns of patches.
        components: of features of unshifted images.

    Returns:
        For each of ``components`` scores [B, K, 3], at the K places of `fine_grid`.
    """
    height, width = images.shape[-2:]
    fine = fine_grid(grid, height)
    parts, side = fine[0] // grid[0], height // grid[0]
    sums, counts = [torch.zeros(len(images), *fine, 3) for _ in components], torch.zeros(*fine, 1)
    for down in range(parts):
        for right in range(parts):
            padding = (right * side // parts, 0, down * side // parts, 0)
            shifted = F.pad(images, padding, mode="replicate")[..., :height, :width]
            counts[: fine[0] - down, : fine[1] - right] += 1
            for total, found, features in zip(sums, components, embed(shifted), strict=True):
                values = found(features).unflatten(1, grid)
                values = values.repeat_interleave(parts, 1).repeat_interleave(parts, 2)
                total[:, : fine[0] - down, : fine[1] - right] += values[:, down:, right:]
    return [(total / counts).flatten(1, 2) for total in sums]


def rotation(values: Tensor, reference: Tensor) -> Tensor:
    """The rotation or reflection [3, 3] that brings ``values`` [M, N, 3] closest to ``reference``."""
    left, _, right = torch.linalg.svd((values.flatten(0, 1).T @ reference.flatten(0, 1)).double())
    return (left @ right).to(values.dtype)


def stretched(values: Tensor) -> Tensor:
    """``values`` [M, N, 3] in 0..1: each channel scaled between the 2nd and the 98th percentile."""
    low, high = (torch.from_numpy(np.percentile(values.flatten(0, 1).numpy(), q, axis=0)).float() for q in (2, 98))
    return ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
