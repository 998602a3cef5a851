"""Shared by all figures: display of images, layout of a sheet, writing of files.

At their original size figures fit the width of a page: a sheet of eight columns is about 8 inches wide, with text of 7
and 8 points.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ijepa.util.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grid = tuple[int, int]
Picture = NDArray[np.float32]
"""[H, W, 3] in 0..1."""
HIDDEN = 0.93
"""Grey for patches that a network does not see."""
CELL = 1.0
"""Inches a picture is high or wide, whichever is more."""
TITLE, SMALL = 8, 7
"""Font sizes of titles and of other text, in points."""
DPI = 200
HEAT = "magma"
"""Perceptually uniform, and readable in grey."""
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008), without yellow, which is too light for lines."""


def rgb(images: Tensor) -> Picture:
    """Images [B, C, H, W] for display: [B, H, W, 3] in 0..1.

    One channel becomes grey; of more than three, the first three are shown. Values outside 0..1, as in float images,
    are scaled per channel between the 1st and the 99th percentile.
    """
    shown = images[:, :3].float() if images.shape[1] > 2 else images[:, :1].float().expand(-1, 3, -1, -1)
    if shown.min() < 0 or shown.max() > 1:
        flat = shown.transpose(0, 1).flatten(1).numpy()  # [3, B * H * W]
        low, high = (torch.from_numpy(np.percentile(flat, q, axis=1)).float().view(3, 1, 1) for q in (1, 99))
        shown = (shown - low) / (high - low).clamp_min(1e-12)
    result: Picture = shown.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return result


def write(figure: "Figure", path: Path, dpi: int = DPI) -> None:
    """Writes a PNG, atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def sheet(
    rows: list[list[Picture]], titles: list[str], below: float = 0.0, cell: float = CELL
) -> "tuple[Figure, NDArray[Any]]":
    """Pictures in rows and columns.

    Args:
        rows: pictures [H, W, 3], all of the same shape; the caller draws those that are [h, w].
        titles: titles of the columns.
        below: height in inches reserved below, for the caller.
        cell: longer side of a picture in inches.

    Returns:
        The figure and its axes [rows, columns].
    """
    from matplotlib.figure import Figure  # pyplot would keep every figure, and takes a second to import

    height, width = rows[0][0].shape[:2]
    scale = cell / max(height, width)
    top = 0.2 if any(titles) else 0.04
    size = (len(titles) * (width * scale + 0.05) + 0.04, len(rows) * (height * scale + 0.05) + top + below)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            frameless(axes[row, column])
            if row == 0:
                axes[row, column].set_title(titles[column], fontsize=TITLE, pad=3)
    return figure, axes


def frameless(axes: "Axes") -> None:
    """No ticks and no frame, but room for a label."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def heat(axes: "Axes", values: NDArray[np.floating], like: Picture, limits: tuple[float, float]) -> Any:
    """Values of patches [h, w] in `HEAT`, as large as the image ``like``; returns what a `bar` explains."""
    height, width = like.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.images[0].remove()
    return axes.imshow(values, cmap=HEAT, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")


def bar(figure: "Figure", shown: Any, axes: list[Any], label: str, end: str = "neither") -> None:
    """A colour bar below ``axes``; ``end``: where values go on beyond it."""
    columns = len({axis.get_subplotspec().colspan.start for axis in axes})
    made = figure.colorbar(
        shown, ax=axes, location="bottom", label=label, extend=end, pad=0.02, fraction=0.05,
        aspect=10 * min(columns, 3), shrink=min(1.0, 3 / columns),
    )  # fmt: skip
    made.ax.locator_params(axis="x", nbins=3 if columns < 3 else 6)
    made.set_label(label, fontsize=SMALL, labelpad=2)
    made.ax.tick_params(labelsize=SMALL, length=2, width=0.5, pad=2)
    made.outline.set_linewidth(0.5)  # type: ignore[operator]


def mark(axes: "Axes", place: Grid, patch_size: int) -> None:
    """Marks the patch at ``place`` with a frame in white on black, visible on any background."""
    from matplotlib.patches import Rectangle

    corner = (place[1] * patch_size - 0.5, place[0] * patch_size - 0.5)
    for colour, width in (("black", 1.8), ("white", 0.8)):
        axes.add_patch(Rectangle(corner, patch_size, patch_size, fill=False, edgecolor=colour, linewidth=width))
