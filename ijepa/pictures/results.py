"""Figures of evaluation results: nearest neighbours, depth and segmentation."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ijepa.pictures.sheet import HIDDEN, rgb, sheet, short_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def neighbours(rows: Tensor, names: list[list[str]], cosines: list[list[float]]) -> "Figure":
    """Images and their nearest neighbours, a row per image, with the ends of their names.

    Args:
        rows: [Q, 1 + K, C, H, W]: an image and its K nearest neighbours, see `rgb`.
        names: [Q][1 + K] of files.
        cosines: [Q][K] of the neighbours.
    """
    shown = rgb(rows.flatten(0, 1)).reshape(*rows.shape[:2], *rows.shape[-2:], 3)
    titles = ["image", "nearest", *(f"{number}." for number in range(2, rows.shape[1]))]
    captions = [
        [
            short_name(files[0]),
            *(f"{short_name(file)}\n{value:.3f}" for file, value in zip(files[1:], values, strict=True)),
        ]
        for files, values in zip(names, cosines, strict=True)
    ]
    return sheet([list(row) for row in shown], titles[: rows.shape[1]], captions=captions)[0]


def pairs(rows: Tensor, names: list[list[str]], cosines: list[float], columns: int = 4) -> "Figure":
    """Pairs of images side by side, with the ends of their names and the cosine of their features.

    Args:
        rows: [P, 2, C, H, W], see `rgb`.
        names: [P][2] of files.
        cosines: [P].
        columns: pairs beside each other.
    """
    shown = rgb(rows.flatten(0, 1))
    captions = [text for files, value in zip(names, cosines, strict=True)
                for text in (f"{short_name(files[0])}\n{value:.3f}", f"{short_name(files[1])}\n ")]  # fmt: skip
    width = 2 * min(columns, len(names))
    blank = -len(shown) % width
    cells = [*shown, *[np.ones_like(shown[0])] * blank]
    texts = [*captions, *[""] * blank]
    return sheet(
        [cells[i : i + width] for i in range(0, len(cells), width)], [""] * width,
        captions=[texts[i : i + width] for i in range(0, len(texts), width)],
    )[0]  # fmt: skip


def depths(images: Tensor, truth: Tensor | None, predicted: Tensor) -> "Figure":
    """Images, depth maps and predictions, a row per image: near is light, unknown is grey.

    Args:
        images: [B, C, H, W], see `rgb`.
        truth: [B, H, W]; 0, NaN or infinite if unknown; None: there are no maps.
        predicted: [B, H, W].
    """
    from matplotlib import colormaps

    scale = predicted if truth is None else truth
    known = scale.isfinite() & (scale > 0)
    low, high = np.percentile(scale[known].numpy(), (1, 99)) if known.any() else (0.0, 1.0)

    def coloured(depth: Tensor) -> NDArray[np.float32]:
        fraction = ((depth - low) / max(high - low, 1e-12)).clamp(0, 1).nan_to_num()
        return np.asarray(colormaps["viridis_r"](fraction.numpy()))[..., :3].astype(np.float32)

    legend = f"depth {low:.3g} to {high:.3g}"
    if truth is None:
        return sheet([list(row) for row in zip(rgb(images), coloured(predicted), strict=True)], ["image", legend])[0]
    shown = np.where(known[..., None].numpy(), coloured(truth), np.float32(HIDDEN))
    rows = zip(rgb(images), shown, coloured(predicted), strict=True)
    return sheet([list(row) for row in rows], ["image", legend, "predicted"])[0]


def classes(images: Tensor, truth: Tensor | None, predicted: Tensor) -> "Figure":
    """Images, segmentation maps and predictions, a row per image; ignored pixels are light grey.

    Args:
        images: [B, C, H, W], see `rgb`.
        truth: [B, H, W] class indices; -1: ignored; None: there are no maps.
        predicted: [B, H, W] class indices.
    """
    given = [predicted] if truth is None else [truth, predicted]
    colours = class_colours(max(int(maps.max()) for maps in given) + 1)
    colours = np.concatenate([colours, np.full((1, 3), HIDDEN, np.float32)])  # index -1 is the last
    rows = zip(rgb(images), *(colours[maps.numpy()] for maps in given), strict=True)
    titles = ["image", "predicted"] if truth is None else ["image", "classes", "predicted"]
    return sheet([list(row) for row in rows], titles)[0]


def class_colours(count: int) -> NDArray[np.float32]:
    """[count, 3] in 0..1: those of matplotlib's tab10, then hues of which consecutive ones are far apart."""
    from matplotlib import colormaps

    first_colours = np.asarray(colormaps["tab10"].colors)  # type: ignore[attr-defined]
    hues = colormaps["hsv"]((np.arange(max(count - len(first_colours), 0)) * 0.618) % 1)[:, :3]
    return np.concatenate([first_colours, hues])[:count].astype(np.float32)
