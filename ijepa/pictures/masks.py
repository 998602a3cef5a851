"""Figures of context and targets: as in the paper, and outlined on the image."""

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
"""How much patches outside the context fade in `outlines`, and to which grey: white, or grey if the image is bright."""
OVERVIEW = 1.6
"""Longer side of an image in `outlines`, in inches."""
MAX_COLUMNS = 4
"""Images per row in `outlines`."""


def masks(images: Tensor, image_masks: Masks, patch_size: int) -> "Figure":
    """Image, outlines, context, and each target block, a row per image, as in the paper's figure 4.

    The titles of targets have the colours of their outlines, see `outlines`.

    Args:
        images: [B, C, H, W], see `rgb`.
        image_masks: the masks of these images.
        patch_size: side of a patch in pixels.
    """
    grid = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    blocks = image_masks.targets.shape[1]
    rows = []
    for index, picture in enumerate(rgb(images)):
        context, targets = _parts(image_masks, index, grid)
        masked = [_only(picture, part, patch_size, np.float32(HIDDEN)) for part in (context, *targets)]
        rows.append([picture, _faded(picture, context, patch_size), *masked])
    names = [f"target {number}" for number in range(1, blocks + 1)] if blocks > 1 else ["target"]
    figure, axes = sheet(rows, ["image", "outlined", "context", *names])
    for index in range(len(rows)):
        _outline(axes[index, 1], *_parts(image_masks, index, grid), patch_size)
    for number in range(blocks):
        axes[0, 3 + number].title.set_color(LINES[number % len(LINES)])
    return figure


def outlines(images: Tensor, image_masks: Masks, patch_size: int) -> "Figure":
    """Context and targets of many images: each target block outlined in a colour, patches outside the context faded.

    Args: see `masks`.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grid = images.shape[-2] // patch_size, images.shape[-1] // patch_size
    columns = -(-len(images) // -(-len(images) // MAX_COLUMNS))  # rows as full as possible
    shown = [_faded(p, _parts(image_masks, index, grid)[0], patch_size) for index, p in enumerate(rgb(images))]
    count = len(shown)
    shown += [np.ones_like(shown[0])] * (-count % columns)
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    blocks = image_masks.targets.shape[1]
    across = {1: 1, 2: 3}.get(columns, 5)
    figure, axes = sheet(rows, [""] * columns, below=0.08 + 0.14 * -(-(1 + blocks) // across), cell=OVERVIEW)
    for index, axis in enumerate(axes.flat):
        if index < count:
            _outline(axis, *_parts(image_masks, index, grid), patch_size)
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


def _parts(image_masks: Masks, index: int, grid: Grid) -> tuple[Bools, list[Bools]]:
    """The context and each target of one image as boolean maps [h, w]; padding is ignored."""
    context = image_masks.context[index]
    if image_masks.valid is not None:
        context = context[image_masks.valid[index]]
    parts = []
    for part in (context, *image_masks.targets[index]):
        mask = np.zeros(grid[0] * grid[1], dtype=bool)
        mask[part.numpy()] = True
        parts.append(mask.reshape(grid))
    return parts[0], parts[1:]


def _only(picture: Picture, where: Bools, patch_size: int, otherwise: Picture | np.float32) -> Picture:
    """The picture [H, W, 3] at the patches ``where`` [h, w], and ``otherwise`` elsewhere."""
    mask = where.repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(mask, picture, otherwise)


def _faded(picture: Picture, context: Bools, patch_size: int) -> Picture:
    fog = np.float32(FOG[int(np.median(picture) > sum(FOG) / 2)])
    faded = picture + np.float32(FADED) * (fog - picture)
    return _only(picture, context, patch_size, faded)


def _outline(axes: "Axes", context: Bools, targets: list[Bools], patch_size: int) -> None:
    """Outlines the context, thinly, and each target, each slightly further inset, so that all stay visible."""
    from matplotlib.collections import PolyCollection

    outline = PolyCollection(borders(context, patch_size), facecolors="none", edgecolors="black", linewidths=0.4)
    axes.add_collection(outline, autolim=False)
    for number, where in enumerate(targets):
        lines = borders(where, patch_size, inset=(number % len(LINES) + 0.8) * patch_size / 12)
        colour = LINES[number % len(LINES)]
        outline = PolyCollection(lines, facecolors="none", edgecolors=colour, linewidths=1.2, joinstyle="miter")
        axes.add_collection(outline, autolim=False)


def borders(where: Bools, patch_size: int, inset: float = 0.0) -> list[list[tuple[float, float]]]:
    """The borders of an area as closed lines of corners (x, y) in pixels: clockwise, holes anticlockwise.

    Args:
        where: [h, w] bool, the patches of the area.
        patch_size: in pixels.
        inset: distance of the line from the border, inwards, in pixels; less than half a patch.
    """
    padded = np.pad(where, 1)
    patches = np.argwhere(where).tolist()
    sides = (_sides(padded[row : row + 3, column : column + 3], row, column) for row, column in patches)
    next_corner = dict(itertools.chain.from_iterable(sides))
    lines = []
    while next_corner:
        start, end = next_corner.popitem()
        line = [start]
        while end != start:
            line.append(end)
            end = next_corner.pop(end)
        lines.append([(x * patch_size - 0.5 + right * inset, y * patch_size - 0.5 + down * inset)
                      for x, y, right, down in line])  # fmt: skip
    return lines


Corner = tuple[int, int, int, int]
"""A corner of the grid, x and y, and the direction in which an inset moves it: -1, 0 or 1, right and down."""


def _sides(neighbourhood: Bools, row: int, column: int) -> list[tuple[Corner, Corner]]:
    """The sides on the border of the patch at the centre of ``neighbourhood`` [3, 3], as clockwise pairs of corners."""
    sides = []
    for turn in range(4):  # the upper side; rotation brings each other side there
        around = np.rot90(neighbourhood, turn)
        if around[0, 1]:
            continue
        ends = []
        for side, outwards in ((0, -1), (2, 1)):  # left and right
            shift = -outwards if not around[1, side] else outwards if around[0, side] else 0  # convex, concave corner
            ends.append(((outwards, -1), (shift, 1)))  # relative to the patch's centre, in half patches
        for _ in range(turn):  # rotate back, clockwise
            ends = [tuple((-y, x) for x, y in end) for end in ends]  # type: ignore[misc]
        start, end = ((column + (1 + x) // 2, row + (1 + y) // 2, *shift) for (x, y), shift in ends)
        sides.append((start, end))
    return sides
