"""The figure of a decoder's samples, as in the paper (figures 6 to 8)."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ijepa.masking import Masks
from ijepa.pictures.sheet import HIDDEN, LINES, Picture, rgb, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def samples(
    images: Tensor, image_masks: Masks, drawn: Tensor, shown: Literal["block", "image"], patch_size: int
) -> "Figure":
    """Image, context, and samples in the outline of the target block, a row per image.

    Args:
        images: [B, C, H, W], see `rgb`.
        image_masks: with one target block each, [B, 1, K].
        drawn: [B, n, C, S, S], samples in the images' values.
        shown: whether a sample is of the block, and is put into the image, or of the whole image.
        patch_size: side of a patch in pixels.
    """
    from matplotlib.patches import Rectangle

    height, width = images.shape[-2:]
    columns = width // patch_size
    rows, outlines = [], []
    for index in range(len(images)):
        block = image_masks.targets[index, 0]
        top, left = int((block // columns).min()) * patch_size, int((block % columns).min()) * patch_size
        bottom = (int((block // columns).max()) + 1) * patch_size
        right = (int((block % columns).max()) + 1) * patch_size
        context = image_masks.context[index]
        if image_masks.valid is not None:
            context = context[image_masks.valid[index]]
        made = []
        for sample in drawn[index]:
            size = (bottom - top, right - left) if shown == "block" else (height, width)
            resized = F.interpolate(sample[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
            whole = images[index].clone() if shown == "block" else resized
            if shown == "block":
                whole[:, top:bottom, left:right] = resized
            made.append(whole.clamp(images.min(), images.max()))
        pictures = rgb(_stacked(images[index], made))
        rows.append([pictures[0], _visible(pictures[0], context.numpy(), patch_size), *pictures[1:]])
        outlines.append((left, top, right - left, bottom - top))
    titles = ["image", "context", *(f"sample {number}" for number in range(1, drawn.shape[1] + 1))]
    figure, axes = sheet(rows, titles)
    for row, (left, top, across, down) in zip(axes, outlines, strict=True):
        for axis in (row[0], *row[2:]):
            corner = (left - 0.5, top - 0.5)
            axis.add_patch(Rectangle(corner, across, down, fill=False, edgecolor=LINES[1], linewidth=0.8))
    return figure


def _stacked(image: Tensor, others: list[Tensor]) -> Tensor:
    return image.new_tensor(np.stack([image.numpy(), *(other.numpy() for other in others)]))


def _visible(picture: Picture, context: "np.ndarray", patch_size: int) -> Picture:  # type: ignore[type-arg]
    """The picture [H, W, 3] at the context's patches, grey elsewhere."""
    grid = picture.shape[0] // patch_size, picture.shape[1] // patch_size
    where = np.zeros(grid[0] * grid[1], dtype=bool)
    where[context] = True
    mask = where.reshape(grid).repeat(patch_size, 0).repeat(patch_size, 1)[..., None]
    return np.where(mask, picture, np.float32(HIDDEN))
