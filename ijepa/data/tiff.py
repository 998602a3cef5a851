"""TIFF files that Pillow cannot read fully: 16-bit, float, any number of channels, stacks of pages."""

import itertools
import logging
import math
import struct
from typing import Any

import numpy as np
import torch
from tifffile import COMPRESSION, TiffFile, TiffPage
from torch import Tensor

from ijepa.data.arrays import convert_channels, to_float
from ijepa.data.limits import check_size

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
PREMULTIPLIED, ALPHA = 1, 2
ORIENTATION, REDUCED_OR_MASK = 274, 0b101
COMPRESSIONS = (
    COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS,
    COMPRESSION.ZSTD, COMPRESSION.LZMA, COMPRESSION.JPEG, COMPRESSION.WEBP,
)  # fmt: skip
"""Those that imagecodecs decodes, for pages that Pillow does not read."""

MAX_PAGES = 1000
"""Pages that are looked at, if fewer are wanted as channels."""
MAX_EXCESS, MAX_PADDING = 2**20, 2**27
"""Bytes that a page may store beyond twice its pixels; more in tiles, which are padded to full size."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # errors are raised with the file's name instead


def read(path: str, channels: int, max_pixels: int | None) -> Tensor | None:
    """The image [channels, H, W], float32 and upright; None if Pillow reads the file without loss.

    Pages are the channels if they are grey, of more than 1 bit, of the same kind and ``channels`` in number; otherwise
    the first page is the image.

    Raises:
        OSError, ValueError and whatever decoders raise on corrupt files: if the file is corrupt or too large, or has
            another number of channels that cannot be converted.
    """
    with open(path, "rb") as file:  # noqa: PTH123  # faster than Path, for millions of files
        try:
            tiff = TiffFile(file)
            first: Any = tiff.pages.first
        except Exception:  # too damaged to determine its kind: leave the error message to Pillow
            return None
        several = channels > 1 and _is_channel(first)
        stack: list[Any] = list(itertools.islice(tiff.pages, max(channels + 1, MAX_PAGES))) if several else []
        following = _next_page(tiff, stack[-1]) if stack and len(stack) < max(channels + 1, MAX_PAGES) else 0
        if following and (
            len(stack) > 1 or following >= tiff.filehandle.size
        ):  # some single-page files have a wrong offset
            raise ValueError(f"truncated after {len(stack)} pages")
        if len(stack) == 1 or not all(_is_channel(page) and _kind(page) == _kind(first) for page in stack):
            stack = []
        if len(stack) != channels:
            if _pillow_suffices(first, channels):
                return None
            if stack and channels not in (1, 3, 4):
                pages = len(stack)
                if pages >= MAX_PAGES:
                    raise ValueError(f"{pages} pages or more, too many for data.channels={channels}")
                raise ValueError(f"{pages} pages for data.channels={channels}; try data.channels={pages}")
            stack = [first]
        check_size(first.imagelength, first.imagewidth, max_pixels, pixel_bytes(first, len(stack)))
        for page in stack:
            check_stored_bytes(page)
        values = torch.cat([_read_page(page) for page in stack])
    colours = first.dtype.kind == "u" and first.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) and len(stack) == 1
    extra = first.extrasamples[-1:]
    alpha = colours and extra in ((PREMULTIPLIED,), (ALPHA,)) and len(values) == (4 if first.photometric == RGB else 2)
    if alpha and extra == (PREMULTIPLIED,):
        values[:-1] = (values[:-1] / values[-1:].clamp(min=1e-6)).clamp(max=1)
    return convert_channels(values, channels, alpha=alpha, opaque=colours)


def pixel_bytes(page: TiffPage, pages: int) -> int:
    """Bytes of a pixel of all pages in memory."""
    return pages * page.samplesperpixel * max(page.dtype.itemsize if page.dtype else 4, 4)


def check_stored_bytes(page: TiffPage) -> None:
    """Raises ValueError if a page stores far more than its pixels: reading it would take memory for nothing."""
    tiles = math.prod(page.chunks) * len(page.databytecounts) * (page.dtype.itemsize if page.dtype else 1)
    stored = sum(page.databytecounts)
    if stored > 2 * min(tiles, MAX_PADDING) + 2 * page.nbytes + MAX_EXCESS:
        raise ValueError(f"stores {stored} bytes for {page.nbytes} bytes of pixels; it is damaged")


def _next_page(tiff: TiffFile, page: TiffPage) -> int:
    """Offset of the page after ``page``, or 0; needed because tifffile silently skips pages of truncated files."""
    layout, file = tiff.tiff, tiff.filehandle
    file.seek(page.offset)
    tags = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))[0]
    file.seek(page.offset + layout.tagnosize + tags * layout.tagsize)
    offset: int = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))[0]
    return offset


def _kind(page: TiffPage) -> tuple[Any, ...]:
    return page.shape, page.dtype, page.bitspersample, page.photometric


def _is_channel(page: TiffPage) -> bool:
    """Whether a page can be a channel of a stack: grey, no overview, and not of 1 bit, as the pages of a fax."""
    return (
        page.samplesperpixel == 1
        and page.bitspersample > 1
        and page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        and not page.subfiletype & REDUCED_OR_MASK
    )


def _pillow_suffices(page: TiffPage, channels: int) -> bool:
    """Whether Pillow reads ``page`` without losing bits or channels."""
    if page.compression == COMPRESSION.WEBP:
        return False
    if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        return True  # palettes, CMYK, YCbCr
    if page.dtype is None or page.dtype.kind not in "bu" or page.bitspersample > 8 or channels not in (1, 3, 4):
        return False
    if page.samplesperpixel == channels and page.samplesperpixel > 1:
        colours = 3 if page.photometric == RGB else 1
        return page.samplesperpixel == colours or page.extrasamples[-1] in (PREMULTIPLIED, ALPHA)
    return page.samplesperpixel <= (6 if page.photometric == RGB else 2)


def _read_page(page: TiffPage) -> Tensor:
    """The values [C, H, W] of a page, upright, as float32."""
    order = {"YX": (0, 1), "YXS": (2, 0, 1), "SYX": (0, 1, 2)}.get(page.axes)
    if order is None or page.dtype is None:
        raise ValueError(f"axes {page.axes} of {page.dtype} are not an image")
    check_compression(page)
    values = upright(page.asarray(maxworkers=1).transpose(order), int(page.tags.valueof(ORIENTATION, 1)))
    tensor = to_float(values if values.ndim == 3 else values[None], page.bitspersample)
    return 1 - tensor if page.photometric == WHITE_IS_ZERO and page.dtype.kind in "bu" else tensor


def check_compression(page: TiffPage) -> None:
    """Raises ValueError if a page is compressed in another way than `COMPRESSIONS`."""
    if page.compression not in COMPRESSIONS:
        try:
            name = COMPRESSION(page.compression).name
        except ValueError:
            name = str(page.compression)
        known = ", ".join(each.name for each in COMPRESSIONS)
        raise ValueError(f"compressed by {name}, which is not read; try one of {known}")


def upright(values: "np.ndarray[Any, Any]", orientation: int) -> "np.ndarray[Any, Any]":
    """Turns ``values`` [..., H, W] upright, according to the EXIF ``orientation`` (1 to 8)."""
    if 5 <= orientation <= 8:
        values = values.swapaxes(-1, -2)
    if orientation in (2, 3, 6, 7):
        values = values[..., ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[..., ::-1, :]
    return values
