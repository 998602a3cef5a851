"""Context and targets as the paper draws them, and outlined on the image."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ijepa.masking import Masks
from ijepa.pictures.sheet import HIDDEN, LINES, SMALL, Grid, Picture, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bools = NDArray[np.bool_]
FADED, FOG = 0.7, (1.0, 0.65)
"""With outlines, how much patches outside the context are faded to white (to grey, in a mostly white image)."""
OVERVIEW = 1.6
"""Inches of an image with outlines."""
MOST = 4
"""Images side by side with outlines."""


def masks(images: Tensor, chosen: Masks, patch_size: int) -> "Figure":
    """Image, outlines, context, and each target block, a row per image, as in the paper's figure 4.

    Titles of targets have the colours of their outlines, see `outlines`.

    Args:
        images: [B, C, H, W], see `rgb`.
        chosen: the masks of these images.
        patch_size: side of a patch in pixels.
    """
    grid = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    blocks = chosen.targets.shape[1]
    rows = []
    for index, picture in enumerate(rgb(images)):
        context, targets = _parts(chosen, index, grid)
        seen = [_only(picture, part, patch_size, np.float32(HIDDEN)) for part in (context, *targets)]
        rows.append([picture, _faded(picture, context, patch_size), *seen])
    names = [f"target {number}" for number in range(1, blocks + 1)] if blocks > 1 else ["target"]
    figure, axes = sheet(rows, ["image", "outlined", "context", *names])
    for index in range(len(rows)):
        _outline(axes[index, 1], *_parts(chosen, index, grid), patch_size)
    for number in range(blocks):
        axes[0, 3 + number].title.set_color(LINES[number % len(LINES)])
    return figure


def outlines(images: Tensor, chosen: Masks, patch_size: int) -> "Figure":
    """Context and targets of many images: each target block outlined in a colour, patches outside the context faded.

    Args: see `masks`.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grid = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    columns = -(-len(images) // -(-len(images) // MOST))  # rows as full as can be
    shown = [_faded(p, _parts(chosen, index, grid)[0], patch_size) for index, p in enumerate(rgb(images))]
    count = len(shown)
    shown += [np.ones_like(shown[0])] * (-count % columns)
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    blocks = chosen.targets.shape[1]
    across = {1: 1, 2: 3}.get(columns, 5)
    figure, axes = sheet(rows, [""] * columns, below=0.08 + 0.14 * -(-(1 + blocks) // across), cell=OVERVIEW)
    for index, axis in enumerate(axes.flat):
        if index < count:
            _outline(axis, *_parts(chosen, index, grid), patch_size)
    handles: list[Any] = [Patch(facecolor="white", edgecolor="black", linewidth=0.6, label="context, in full colour")]
    handles += [
        Line2D(
            [],
            [],
            color=LINES[number % len(LINES)],
            linewidth=1.5,
            label=f"target {number + 1}" if blocks > 1 else "target",
        )
        for number in range(blocks)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=across, fontsize=SMALL,
                  frameon=False, handlelength=1.2, columnspacing=1.2, borderaxespad=0.1)  # fmt: skip
    return figure


def _parts(chosen: Masks, index: int, grid: Grid) -> tuple[Bools, list[Bools]]:
    """Of one image: where the context is, and where each target is, [h, w] each; padding is nowhere."""
    context = chosen.context[index]
    if chosen.valid is not None:
        context = context[chosen.valid[index]]
    parts = []
    for part in (context, *chosen.targets[index]):
        where = np.zeros(grid[0] * grid[1], dtype=bool)
        where[part.numpy()] = True
        parts.append(where.reshape(grid))
    return parts[0], parts[1:]


def _only(picture: Picture, where: Bools, patch_size: int, otherwise: Picture | np.float32) -> Picture:
    """The picture [H, W, 3] where ``where`` is, something else elsewhere."""
    mask = where.repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(mask, picture, otherwise)


def _faded(picture: Picture, context: Bools, patch_size: int) -> Picture:
    fog = np.float32(FOG[int(np.median(picture) > sum(FOG) / 2)])
    faded = picture + np.float32(FADED) * (fog - picture)
    return _only(picture, context, patch_size, faded)


def _outline(axes: "Axes", context: Bools, targets: list[Bools], patch_size: int) -> None:
    """Outlines of the context, thin, and of each target, each slightly more inset, so that all stay visible."""
    from matplotlib.collections import PolyCollection

    drawn = PolyCollection(borders(context, patch_size), facecolors="none", edgecolors="black", linewidths=0.4)
    axes.add_collection(drawn, autolim=False)
    for number, where in enumerate(targets):
        lines = borders(where, patch_size, inset=(number % len(LINES) + 0.8) * patch_size / 12)
        colour = LINES[number % len(LINES)]
        drawn = PolyCollection(lines, facecolors="none", edgecolors=colour, linewidths=1.2, joinstyle="miter")
        axes.add_collection(drawn, autolim=False)


def borders(where: Bools, patch_size: int, inset: float = 0.0) -> list[list[tuple[float, float]]]:
    """The borders of an area as closed lines of corners (x, y) in pixels, clockwise, holes the other way round.

    Args:
        where: [h, w], which patches belong.
        patch_size: in pixels.
        inset: how far inside of the border the line runs, in pixels; less than half a patch.
    """
    padded = np.pad(where, 1)
    places = np.argwhere(where).tolist()
    sides = (_sides(padded[row : row + 3, column : column + 3], row, column) for row, column in places)
    following = dict(itertools.chain.from_iterable(sides))
    lines = []
    while following:
        start, end = following.popitem()
        line = [start]
        while end != start:
            line.append(end)
            end = following.pop(end)
        lines.append([(x * patch_size - 0.5 + right * inset, y * patch_size - 0.5 + down * inset)
                      for x, y, right, down in line])  # fmt: skip
    return lines


Corner = tuple[int, int, int, int]
"""A corner of the grid, x and y, and the direction in which an inset moves it: -1, 0 or 1, right and down."""


def _sides(here: Bools, row: int, column: int) -> list[tuple[Corner, Corner]]:
    """Those sides of a patch, in the middle of ``here`` [3, 3], on the border, from corner to corner, clockwise."""
    sides = []
    for turn in range(4):  # the side above; the others by turning them there
        around = np.rot90(here, turn)
        if around[0, 1]:
            continue
        ends = []
        for side, outwards in ((0, -1), (2, 1)):  # left and right
            shift = -outwards if not around[1, side] else outwards if around[0, side] else 0  # corner, inner corner
            ends.append(((outwards, -1), (shift, 1)))  # from the patch's middle, in halves of a patch
        for _ in range(turn):  # back, clockwise
            ends = [tuple((-y, x) for x, y in end) for end in ends]  # type: ignore[misc]
        start, end = ((column + (1 + x) // 2, row + (1 + y) // 2, *shift) for (x, y), shift in ends)
        sides.append((start, end))
    return sides
