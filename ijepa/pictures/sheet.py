"""What all figures share: how an image is shown, how a sheet of them is laid out, how it is written."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ijepa.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Grid = tuple[int, int]
HIDDEN = 0.93
"""Grey of what a network does not see."""
CELL = 1.7
"""Inches a picture is high or wide, whichever is more."""


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


def sheet(rows: list[list[NDArray[np.float32]]], titles: list[str]) -> "Figure":
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
