"""JPEG files, decoded only as finely as a part of them is needed."""

import math
import os
from dataclasses import dataclass

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from PIL import ExifTags
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ijepa.data.crops import Box
from ijepa.data.limits import check_size, open_picture
from ijepa.util.reading import check_regular

MAGIC = b"\xff\xd8\xff"
COLOURS = {1: ("GRAY", {"Gray"}), 3: ("RGB", {"Gray", "YCbCr", "RGB"})}
"""By number of channels: what a file is decoded to, and the kinds of files of which all decoders make the same."""
MAX_BYTES = 2**27
"""Larger files are left to Pillow, which reads them in pieces."""
APP1, SCAN = 0xE1, 0xDA
"""Markers of segments: metadata, and the start of the pixels."""


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file in memory; ``height`` and ``width`` are those of the upright image."""

    data: bytes
    height: int
    width: int
    channels: int
    orientation: int

    def decoded(self, scale: int = 1) -> NDArray[np.uint8] | None:
        """The upright image at a part of its size, [H, W, C]; None if damaged."""
        stored = (self.width, self.height) if self.orientation > 4 else (self.height, self.width)
        height, width = (math.ceil(side / scale) for side in stored)
        try:
            pixels = simplejpeg.decode_jpeg(self.data, COLOURS[self.channels][0], min_height=height, min_width=width)
        except ValueError:
            return None
        # Tensors have no negative strides.
        return pixels if self.orientation == 1 else np.ascontiguousarray(upright(pixels, self.orientation))


def resized(pixels: NDArray[np.uint8], box: Box, size: tuple[int, int]) -> Tensor:
    """A part of an image, resized to ``size`` (bilinear, with antialiasing): [C, H, W] uint8.

    Args:
        pixels: the image [H, W, C], decoded at the part of its size that the box names.
        box: it is rounded to whole pixels there.
        size: height and width.
    """
    rows, columns = (slice(round(start / box.scale), round((start + length) / box.scale))
                     for start, length in ((box.top, box.height), (box.left, box.width)))  # fmt: skip
    values = torch.from_numpy(pixels[rows, columns]).permute(2, 0, 1)
    found: Tensor = TF.resize(values, list(size), InterpolationMode.BILINEAR, antialias=True)
    return found


def open_jpeg(path: str, channels: int, max_pixels: int | None) -> Jpeg | None:
    """A file, not decoded yet; None if it is none of the JPEG files of which all decoders make the same.

    Args:
        path: a file of any format.
        channels: of the image to be read.
        max_pixels: see `ijepa.data.decode.decode`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it has more pixels than ``max_pixels``.
    """
    colours = COLOURS.get(channels)
    if colours is None:
        return None
    check_regular(path)
    with open(path, "rb") as file:  # noqa: PTH123  # faster than Path, for millions of files
        start = file.read(len(MAGIC))
        if start != MAGIC or os.fstat(file.fileno()).st_size > MAX_BYTES:
            return None
        data = start + file.read()
    try:
        height, width, kind, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # damaged
        return None
    if kind not in colours[1]:
        return None
    check_size(height, width, max_pixels)
    turned = _orientation(path) if _has_metadata(data) else 1
    return Jpeg(data, *((width, height) if turned > 4 else (height, width)), channels, turned)


def _has_metadata(data: bytes) -> bool:
    """Whether a file may have an orientation: a segment APP1, of Exif or XMP, or no segments where they should be."""
    at = 2
    while data[at : at + 1] == b"\xff" and len(data) > at + 3:
        marker = data[at + 1]
        if marker == SCAN:
            return False
        if marker == APP1:
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return True


def _orientation(path: str) -> int:
    """What `PIL.ImageOps.exif_transpose` takes the orientation to be: 1 (upright) to 8."""
    try:
        with open_picture(path) as image:
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata can raise anything; the image itself may be intact
        return 1
    return found if found in range(1, 9) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """[H, W, C] flipped, and transposed above 4, as the orientation 1 to 8 of its metadata says."""
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1] if orientation in (2, 3) else pixels[::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1] if orientation in (3, 4) else pixels[:, ::-1]
    return pixels.swapaxes(0, 1) if orientation > 4 else pixels
