"""Decodes image files; the content determines the format, not the file name."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from ijepa.data import arrays, png, tiff
from ijepa.data.arrays import convert_channels, to_float
from ijepa.data.limits import ValueLimit, check_size, open_picture
from ijepa.util.errors import UserError
from ijepa.util.reading import check_regular

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
NPY, NPZ = b"\x93NUMPY", b"PK\x03\x04"
START = 32
"""Bytes that tell the format."""

Picture = Image.Image | Tensor
"""8-bit grey, RGB and RGBA images are PIL images; all others are float32 tensors [C, H, W]."""


def decode(path: str, channels: int, max_pixels: int | None = None) -> Picture:
    """The image at ``path``, upright, with ``channels`` channels; the first frame if there are several.

    Args:
        path: a file in one of the formats that docs/data.md lists.
        channels: 1 (grey), 3 (RGB), 4 (RGBA), or the file's own number. Transparent pixels become white in grey and
            RGB.
        max_pixels: images with more pixels are not decoded; None: no limit.

    Raises:
        OSError, ValueError and whatever decoders raise on corrupt files: if the file is not an image, truncated, too
            large, or has other channels.
    """
    check_regular(path)
    with open(path, "rb") as file:  # noqa: PTH123  # faster than Path, for millions of files
        start = file.read(START)
    if start.startswith(NPY):
        return arrays.read_npy(path, channels, max_pixels)
    if start.startswith(NPZ):
        return arrays.read_npz(path, channels, max_pixels)
    if start.startswith(tiff.MAGIC):
        values = tiff.read(path, channels, max_pixels)
        if values is not None:
            return values
    with open_picture(path) as image:
        if png.is_deep(start):
            check_size(image.height, image.width, max_pixels, 4 * max(channels, len(image.getbands())))
            return png.read_deep(path, channels)
        check_size(image.height, image.width, max_pixels)
        image.load()
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # damaged metadata can raise anything; the image itself is intact
            upright = image
        return convert(upright, channels)


def read_picture(
    image: str | Path | Picture, channels: int, max_pixels: int | None = None, limit: ValueLimit | None = None
) -> Picture:
    """An image of either kind, or the one in a file; raises UserError if it cannot be read or exceeds ``limit``."""
    if isinstance(image, Image.Image | Tensor):
        if limit is not None and isinstance(image, Tensor) and image.is_floating_point() and len(image) == channels:
            try:
                limit.check(image)
            except ValueError as error:
                raise UserError(f"an image cannot be used ({error})") from None
        return image
    try:
        picture = decode(str(image), channels, max_pixels)
        if limit is not None and isinstance(picture, Tensor):
            limit.check(picture)
        return picture
    except Exception as error:  # damaged files make decoders raise anything
        raise UserError(f"{image}: cannot be read as an image ({error})") from None


def convert(image: Image.Image, channels: int) -> Picture:
    """Converts ``image`` to ``channels``; to a tensor [channels, H, W] if it has more than 8 bits.

    Raises:
        ValueError: if it cannot be converted to this number of channels.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        return convert_channels(
            to_float(np.asarray(image)[None].clip(0, 65535).astype(np.uint16)), channels, opaque=True
        )
    if image.mode == "F":
        return convert_channels(to_float(np.asarray(image)[None]), channels)
    if channels not in MODES:
        raise ValueError(f"an 8-bit {image.mode} picture cannot have data.channels={channels}; try 1, 3 or 4")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
    if image.mode == "RGBA" and channels != 4:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = MODES[channels]
    return image if image.mode == mode else image.convert(mode)
