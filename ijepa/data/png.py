"""16-bit PNG files, of which Pillow would keep 8 bits, and whose damaged ones crash torchvision's decoder."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ijepa.data.arrays import convert_channels
from ijepa.data.tiff import ORIENTATION, upright

MAGIC = b"\x89PNG\r\n\x1a\n"
BIT_DEPTH = 24
"""Offset of the bit depth."""
LARGEST = 2**16 - 1


def is_deep(start: bytes) -> bool:
    """Whether a file that starts like this is a PNG of 16 bits."""
    return start.startswith(MAGIC) and start[BIT_DEPTH : BIT_DEPTH + 1] == b"\x10"


def read_deep(path: str, channels: int) -> Tensor:
    """The image [channels, H, W] of a 16-bit PNG, float32 in 0..1 and upright.

    Raises:
        ValueError, RuntimeError: if the file is damaged.
    """
    data = Path(path).read_bytes()
    values: np.ndarray[Any, Any] = np.atleast_3d(imagecodecs.png_decode(data)).transpose(2, 0, 1)  # [C, H, W]
    chunks = dict(_chunks(data))
    if b"tRNS" in chunks and len(values) in (1, 3):  # a colour that is transparent
        key = np.array(struct.unpack(f">{len(values)}H", chunks[b"tRNS"]))[:, None, None]
        opaque = (values != key).any(axis=0, keepdims=True).astype(values.dtype) * LARGEST
        values = np.concatenate([values, opaque])
    values = upright(values, _orientation(chunks))
    pixels = torch.from_numpy(values.astype(np.float32)) / LARGEST
    return convert_channels(pixels, channels, alpha=len(pixels) in (2, 4), opaque=True)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and contents of a file's chunks."""
    at = len(MAGIC)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at + 8 : at + 8 + length]
        at += 12 + length


def _orientation(chunks: dict[bytes, bytes]) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none that can be read."""
    exif = Image.Exif()
    try:
        exif.load(chunks[b"eXIf"])
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # damaged metadata can raise anything; the image itself is intact
        return 1
