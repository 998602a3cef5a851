"""Decodes image files; the content determines the format, not the file name."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_png, read_file

from ijepa.data import arrays, tiff
from ijepa.data.arrays import convert_channels, to_float
from ijepa.data.limits import check_size, without_pillow_limit
from ijepa.util.errors import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
NPY, NPZ, PNG = b"\x93NUMPY", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24
"""Offset of the bit depth in a PNG file."""

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
    with open(path, "rb") as file:  # noqa: PTH123  # faster than Path, for millions of files
        start = file.read(PNG_DEPTH + 1)
    if start.startswith(NPY):
        return arrays.read_npy(path, channels, max_pixels)
    if start.startswith(NPZ):
        return arrays.read_npz(path, channels, max_pixels)
    with without_pillow_limit():
        if start.startswith(tiff.MAGIC):
            values = tiff.read(path, channels, max_pixels)
            if values is not None:
                return values
        with Image.open(path) as image:
            check_size(image.height, image.width, max_pixels)
            if start.startswith(PNG) and start[PNG_DEPTH:] == b"\x10":
                return _decode_16_bit_png(path, channels)
            image.load()
            try:
                upright = ImageOps.exif_transpose(image)
            except Exception:  # damaged metadata can raise anything; the image itself is intact
                upright = image
            return convert(upright, channels)


def read_picture(image: str | Path | Picture, channels: int, max_pixels: int | None = None) -> Picture:
    """An image of either kind, or the one in a file; raises UserError if that cannot be read."""
    if isinstance(image, Image.Image | Tensor):
        return image
    try:
        return decode(str(image), channels, max_pixels)
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


def _decode_16_bit_png(path: str, channels: int) -> Tensor:
    """Decodes a 16-bit PNG; Pillow would keep only 8 bits."""
    values = decode_png(read_file(path), ImageReadMode.UNCHANGED, apply_exif_orientation=True)
    pixels = values.to(torch.float32) / 65535
    return convert_channels(pixels, channels, alpha=len(pixels) in (2, 4), opaque=True)
