"""What all figures share: display of images, layout of a sheet, writing of files.

At their original size, figures fit the width of a page: a sheet of eight columns is about 8 inches wide, with text of 7
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
"""Rows and columns of patches, or the row and column of one."""
Picture = NDArray[np.float32]
"""[H, W, 3] in 0..1."""
HIDDEN = 0.93
"""Grey of hidden patches and unknown pixels."""
CELL = 1.0
"""Longer side of a picture, in inches."""
TITLE, SMALL, TINY = 8, 7, 5
"""Font sizes of titles, of other text and of captions, in points."""
CAPTION = 0.1
"""Height of a line of captions, in inches."""
NAME_LENGTH = 22
"""Characters of a file's name below a picture, at most."""
DPI = 200
"""Resolution of PNG files."""
HEAT = "magma"
"""Colour map: perceptually uniform, and readable in grey."""
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can distinguish (Okabe and Ito, 2008), without yellow: too light for lines."""


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
    rows: list[list[Picture]],
    titles: list[str],
    below: float = 0.0,
    cell: float = CELL,
    captions: list[list[str]] | None = None,
) -> "tuple[Figure, NDArray[Any]]":
    """Pictures in rows and columns.

    Args:
        rows: pictures [H, W, 3], all of the same size.
        titles: titles of the columns.
        below: height below the pictures, in inches, for the caller's colour bar or legend.
        cell: longer side of a picture, in inches.
        captions: one or two lines below each picture.

    Returns:
        The figure and its axes [rows, columns].
    """
    from matplotlib.figure import Figure  # pyplot keeps every figure in memory, and takes a second to import

    height, width = rows[0][0].shape[:2]
    scale = cell / max(height, width)
    top = 0.2 if any(titles) else 0.04
    line = 0.05 if captions is None else CAPTION * (1 + max(text.count("\n") for row in captions for text in row))
    size = (len(titles) * (width * scale + 0.05) + 0.04, len(rows) * (height * scale + line) + top + below)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            frameless(axes[row, column])
            if captions is not None:
                axes[row, column].set_xlabel(captions[row][column], fontsize=TINY, labelpad=1.5, parse_math=False)
            if row == 0:
                axes[row, column].set_title(titles[column], fontsize=TITLE, pad=3)
    return figure, axes


def short_name(path: str) -> str:
    """The end of a file's name, to be shown below its picture."""
    name = Path(path).name.encode(errors="replace").decode()
    return name if len(name) <= NAME_LENGTH else f"\u2026{name[1 - NAME_LENGTH :]}"


def frameless(axes: "Axes") -> None:
    """Removes ticks and frame; labels remain possible."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def heat(axes: "Axes", values: NDArray[np.floating], like: Picture, limits: tuple[float, float]) -> Any:
    """Draws values of patches [h, w] in `HEAT`, at the size of the image ``like``; returns the image for a `bar`."""
    height, width = like.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.images[0].remove()
    return axes.imshow(values, cmap=HEAT, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")


def bar(figure: "Figure", mappable: Any, axes: list[Any], label: str, end: str = "neither") -> None:
    """A colour bar for ``mappable``, see `heat`, below ``axes``; ``end`` is matplotlib's ``extend``."""
    columns = len({axis.get_subplotspec().colspan.start for axis in axes})
    colour_bar = figure.colorbar(
        mappable, ax=axes, location="bottom", label=label, extend=end, pad=0.02, fraction=0.05,
        aspect=10 * min(columns, 3), shrink=min(1.0, 3 / columns),
    )  # fmt: skip
    colour_bar.ax.locator_params(axis="x", nbins=3 if columns < 3 else 6)
    colour_bar.set_label(label, fontsize=SMALL, labelpad=2)
    colour_bar.ax.tick_params(labelsize=SMALL, length=2, width=0.5, pad=2)
    colour_bar.outline.set_linewidth(0.5)  # type: ignore[operator]


def mark(axes: "Axes", patch: Grid, patch_size: int) -> None:
    """Marks the patch at row and column ``patch`` with a white frame on black, visible on any background."""
    from matplotlib.patches import Rectangle

    corner = (patch[1] * patch_size - 0.5, patch[0] * patch_size - 0.5)
    for colour, width in (("black", 1.8), ("white", 0.8)):
        axes.add_patch(Rectangle(corner, patch_size, patch_size, fill=False, edgecolor=colour, linewidth=width))
