"""Figures: context and targets as the paper draws them, and the principal components of features."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ijepa.files import replacing
from ijepa.masking import Masks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Grid = tuple[int, int]
HIDDEN = 0.93
"""Grey of what a network does not see."""
CELL = 1.7
"""Inches a picture is high or wide, whichever is more."""


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
    return _sheet(rows, ["image", "context", *targets])


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
    return _sheet([list(row) for row in zip(*columns, strict=True)], ["image", *named])


def neighbours(rows: Tensor) -> "Figure":
    """Images and their nearest neighbours, a row per image.

    Args:
        rows: [Q, 1 + K, C, H, W]: an image and then its K nearest, see `rgb`.
    """
    shown = rgb(rows.flatten(0, 1)).reshape(*rows.shape[:2], *rows.shape[-2:], 3)
    titles = ["image", "nearest", *(f"{number}." for number in range(2, rows.shape[1]))]
    return _sheet([list(row) for row in shown], titles[: rows.shape[1]])


def depths(images: Tensor, truth: Tensor, predicted: Tensor) -> "Figure":
    """Images, their depth and what was predicted, a row per image: near is light, what is not known grey.

    Args:
        images: [B, C, H, W], see `rgb`.
        truth: [B, H, W]; 0, NaN or infinite where it is not known.
        predicted: [B, H, W].
    """
    from matplotlib import colormaps

    known = truth.isfinite() & (truth > 0)
    low, high = np.percentile(truth[known].numpy(), (1, 99)) if known.any() else (0.0, 1.0)

    def coloured(depth: Tensor) -> NDArray[np.float32]:
        place = ((depth - low) / max(high - low, 1e-12)).clamp(0, 1).nan_to_num()
        return np.asarray(colormaps["viridis_r"](place.numpy()))[..., :3].astype(np.float32)

    shown = np.where(known[..., None].numpy(), coloured(truth), np.float32(HIDDEN))
    rows = zip(rgb(images), shown, coloured(predicted), strict=True)
    return _sheet([list(row) for row in rows], ["image", f"depth {low:.3g} to {high:.3g}", "predicted"])


def classes(images: Tensor, truth: Tensor, predicted: Tensor) -> "Figure":
    """Images, the classes of their pixels and what was predicted, a row per image; light grey where none counts.

    Args:
        images: [B, C, H, W], see `rgb`.
        truth: [B, H, W] class indices, -1 where none counts.
        predicted: [B, H, W].
    """
    from matplotlib import colormaps

    few = np.asarray(colormaps["tab10"].colors)  # type: ignore[attr-defined]
    many = max(int(truth.max()), int(predicted.max())) + 1 - len(few)
    hues = colormaps["hsv"]((np.arange(max(many, 0)) * 0.618) % 1)[:, :3]  # neighbours are far apart
    colours = np.concatenate([few, hues, [[HIDDEN] * 3]]).astype(np.float32)  # -1 is the last
    rows = zip(rgb(images), colours[truth.numpy()], colours[predicted.numpy()], strict=True)
    return _sheet([list(row) for row in rows], ["image", "classes", "predicted"])


def rgb(images: Tensor) -> NDArray[np.float32]:
    """What can be shown of images [B, C, H, W]: [B, H, W, 3] in 0..1.

    One channel becomes grey, of more than three the first three are shown. Values that do not lie in 0..1, as floats in
    units of their own, are stretched between their first and last percentile, channel by channel.
    """
    shown = images[:, :3].float() if images.shape[1] > 2 else images[:, :1].float().expand(-1, 3, -1, -1)
    if shown.min() < 0 or shown.max() > 1:
        flat = shown.transpose(0, 1).flatten(1).numpy()  # [3, B * H * W]
        low, high = (torch.from_numpy(np.percentile(flat, q, axis=1)).float().view(3, 1, 1) for q in (1, 99))
        shown = (shown - low) / (high - low).clamp_min(1e-12)
    result: NDArray[np.float32] = shown.clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return result


def write(figure: "Figure", path: Path) -> None:
    """Writes a PNG, atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


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


def _only(picture: NDArray[np.float32], part: Tensor, grid: Grid, patch_size: int) -> NDArray[np.float32]:
    """The picture [H, W, 3] where the patches of ``part`` are, grey elsewhere."""
    seen = np.zeros(grid[0] * grid[1], dtype=bool)
    seen[part.numpy()] = True
    mask = seen.reshape(grid).repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(mask, picture, np.float32(HIDDEN))


def _sheet(rows: list[list[NDArray[np.float32]]], titles: list[str]) -> "Figure":
    from matplotlib.figure import Figure  # pyplot would keep every figure, and takes a second to import

    height, width = rows[0][0].shape[:2]
    scale = CELL / max(height, width)
    size = (len(titles) * (width * scale + 0.05), len(rows) * (height * scale + 0.05) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr, call-arg]
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set_axis_off()
            if row == 0:
                axes[row, column].set_title(titles[column], fontsize=10)
    return figure
