"""The limit on image size, checked before decoding; it replaces Pillow's."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that Pillow reads here; JPEG includes those of several pictures, as from telephones."""
_lock = threading.Lock()
_suspended = 0
_pillow_limit: int | None = None


def check_size(height: int, width: int, max_pixels: int | None) -> None:
    """Rejects an image with more than ``max_pixels`` pixels (None: no limit).

    Raises:
        ValueError: names the image's size and the key to change.
    """
    if max_pixels is not None and height * width > max_pixels:
        size = f"{width}x{height} pixels, more than data.max_pixels={max_pixels}"
        raise ValueError(f"{size}; try data.max_pixels={height * width}, or null for no limit")


@contextmanager
def open_picture(path: str) -> Iterator[Image.Image]:
    """An image file in Pillow, not decoded yet; only the formats of docs/data.md, so that no other decoder runs.

    Not opened by its path: Pillow would map uncompressed files to memory, and turns those with the wrong row length.
    """
    with (
        without_pillow_limit(),
        open(path, "rb") as file,  # noqa: PTH123  # faster than Path, for millions of files
        Image.open(file, formats=PILLOW_FORMATS) as image,
    ):
        yield image


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Suspends Pillow's process-wide limit, which would warn about images that data.max_pixels allows.

    The limit is restored when the last of several overlapping threads leaves.
    """
    global _suspended, _pillow_limit
    with _lock:
        if not _suspended:
            _pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _suspended += 1
    try:
        yield
    finally:
        with _lock:
            _suspended -= 1
            if not _suspended:
                Image.MAX_IMAGE_PIXELS = _pillow_limit
