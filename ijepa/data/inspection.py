"""What a data set holds: every image is decoded once."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ijepa.data.limits import open_picture
from ijepa.data.loader import Loader, batched
from ijepa.data.moments import Moments, image_moments
from ijepa.data.sets import Images, UnreadableError

BATCH = 8
"""Images that a process reads at a time."""


class Inspected(NamedTuple):
    """One image.

    Attributes:
        kind: format and mode of its file, or its type.
        size: width and height.
        digest: of its size and pixels, after conversion to the model's channels.
        moments: of its pixels.
    """

    kind: str
    size: tuple[int, int]
    digest: bytes
    moments: Moments


@dataclass
class Inspection:
    """All images of a part of the data.

    Attributes:
        images: their number.
        kinds: how many there are of each kind.
        sizes: width and height of each readable image.
        unreadable: a message for each unreadable one.
        moments: of all pixels; None: nothing is readable.
        by_digest: names of the images with the same size and pixels.
    """

    images: int
    kinds: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    moments: Moments | None = None
    by_digest: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))

    def duplicates(self) -> list[list[str]]:
        """Groups of images with the same pixels."""
        return [names for names in self.by_digest.values() if len(names) > 1]


def inspect(images: Images, workers: int, report: Callable[[int], None], every_seconds: float = 10) -> Inspection:
    """Reads every image once.

    Args:
        images: the data set.
        workers: number of data loader processes; it does not affect the result.
        report: called regularly with the number of images done.
        every_seconds: interval of these calls.
    """
    found, reported = Inspection(len(images)), time.monotonic()
    batches = Loader(_Inspected(images), batched(len(images), BATCH), workers, list)
    for index, result in enumerate(result for batch in batches for result in batch):
        if isinstance(result, str):
            found.unreadable.append(result)
        else:
            found.kinds[result.kind] += 1
            found.sizes.append(result.size)
            found.by_digest[result.digest].append(images.name(index))
            found.moments = result.moments if found.moments is None else found.moments.merged(result.moments)
        if time.monotonic() - reported >= every_seconds:
            reported = time.monotonic()
            report(index + 1)
    return found


def across(one: Inspection, other: Inspection) -> list[list[str]]:
    """Groups of images with the same pixels, of which some are in each part."""
    return [[*names, *other.by_digest[digest]] for digest, names in one.by_digest.items() if digest in other.by_digest]


def spread(values: Sequence[int]) -> str:
    """Smallest, median and largest of some numbers, as text; one number if they are the same."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} / {np.median(values):.0f} / {high}"


class _Inspected(Dataset[Inspected | str]):
    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Inspected | str:
        try:
            image = self.images.read(index)
        except UnreadableError as fault:
            return str(fault)
        if isinstance(image, Image.Image):
            size, pixels, kind = image.size, np.asarray(image), f"picture {image.mode}"
        else:
            size, pixels, kind = (image.shape[2], image.shape[1]), image.numpy(), f"array, {len(image)} channels"
        digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(pixels).data)
        return Inspected(_kind(self.images.name(index)) or kind, size, digest.digest(), image_moments(image))


def _kind(name: str) -> str | None:
    """Format and mode of the file of this name, from its header; None: it is no file that Pillow can read."""
    try:
        with open_picture(name) as file:
            return f"{file.format} {file.mode}"
    except Exception:  # of Pillow's decoders: any
        return None
