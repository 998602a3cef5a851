"""Limits on images: on their size, checked before decoding, in place of Pillow's; and on their values."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

PIXEL_BYTES = 8
"""Bytes in memory that an image may take for each of data.max_pixels."""
MAX_DEVIATIONS = 1e4
"""The limit on values for encoders whose files store none, as in conf/data/."""
OVERFLOW = 1e15
"""Standard deviations from the mean beyond which sums of squares in an encoder may overflow."""
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that Pillow reads here; JPEG includes those of several pictures, as from telephones."""
_lock = threading.Lock()
_suspended = 0
_pillow_limit: int | None = None


def check_size(height: int, width: int, max_pixels: int | None, pixel_bytes: int = 4) -> None:
    """Rejects an image with more than ``max_pixels`` pixels, or `PIXEL_BYTES` times as many bytes (None: no limit).

    Args:
        height: of the image.
        width: of the image.
        max_pixels: data.max_pixels.
        pixel_bytes: of a pixel in memory, over all channels.

    Raises:
        ValueError: names the image's size and the key to change.
    """
    needed = max(height * width, math.ceil(height * width * pixel_bytes / PIXEL_BYTES))
    if max_pixels is not None and needed > max_pixels:
        large = "" if needed == height * width else f" of {pixel_bytes} bytes"
        size = f"{width}x{height} pixels{large}, more than data.max_pixels={max_pixels}"
        raise ValueError(f"{size}; try data.max_pixels={needed}, or null for no limit")


@dataclass(frozen=True)
class ValueLimit:
    """How far the values of float images may be from the mean: a few larger ones would spoil the weights.

    Attributes:
        mean, std: of each channel, data.mean and data.std.
        deviations: largest distance from the mean in standard deviations, data.max_deviations.
        is_trained: mean and std are those that an encoder was trained with, which no key can change.
    """

    mean: Sequence[float]
    std: Sequence[float]
    deviations: float
    is_trained: bool = field(default=False, repr=False)

    @classmethod
    def of_encoder(cls, mean: Sequence[float], std: Sequence[float], deviations: float | None) -> "ValueLimit":
        """For new images of an encoder with this normalisation; without a limit (None), that of its arithmetic."""
        return cls(mean, std, min(deviations or OVERFLOW, OVERFLOW), is_trained=True)

    def check(self, image: Tensor) -> None:
        """Raises ValueError if a value of ``image`` [C, H, W] is too far from the mean of its channel."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        distance = float(((image - mean) / std).abs().max())
        if not distance <= self.deviations:
            values = f"values from {float(image.min()):.3g} to {float(image.max()):.3g}, up to {distance:.3g} standard "
            limit = f"deviations from data.mean, above data.max_deviations={self.deviations:g}"
            advice = "repair it, or compute data.mean and data.std of these images"
            if self.is_trained:
                limit = f"deviations from the mean in training, more than {self.deviations:g}"
                advice = "repair it, or convert it to the units of training"
            raise ValueError(f"{values}{limit}; {advice}")


@contextmanager
def open_picture(path: str) -> Iterator[Image.Image]:
    """An image file in Pillow, not decoded yet; only the formats of docs/data.md, so that no other decoder runs.

    Not opened by its path: Pillow would map uncompressed files to memory, and turns those with the wrong row length.
    """
    with without_pillow_limit(), open(path, "rb") as file:  # noqa: PTH123  # faster than Path, for millions of files
        try:
            opened = Image.open(file, formats=PILLOW_FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"is damaged, or none of {', '.join(PILLOW_FORMATS)}") from None
        with opened as image:
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
