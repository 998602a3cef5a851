"""The protocol of data sets: a length, images by index, and optionally labels and maps."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ijepa.data.decode import Picture, convert, decode
from ijepa.util.randomness import Stream, shuffled

CLASS = "class"
"""Name of the label set of sources that have only one."""


Labels = Mapping[str, Sequence[int]]


class Images(Protocol):
    """A set of images. ``labels`` are class indices by label set, or {}; ``read`` may raise `UnreadableError`.

    An image is a PIL image or a float32 tensor [C, H, W], with the model's number of channels.
    """

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Picture: ...

    def name(self, index: int) -> str: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """Images with a fingerprint that changes when they change, so that features can be cached."""

    def fingerprint(self) -> str | None: ...


@runtime_checkable
class HasDenseMaps(Protocol):
    """Images with per-pixel maps. ``maps`` are the available kinds, one or both of "depth" and "segmentation".

    A map is [H, W], of the same size as its image: depth is float32, and 0, NaN or infinite if unknown; classes are
    int64 indices, and -1 is ignored. ``read_map`` raises `UnreadableError`, also if an image has no map.
    """

    @property
    def maps(self) -> tuple[str, ...]: ...

    def read_map(self, index: int, kind: str) -> Tensor: ...


def kinds(images: Images) -> tuple[str, ...]:
    """The kinds of maps that ``images`` have."""
    return images.maps if isinstance(images, HasDenseMaps) else ()


def read_map(images: Images, index: int, kind: str) -> Tensor:
    """One of the maps that `kinds` names."""
    assert isinstance(images, HasDenseMaps)
    return images.read_map(index, kind)


class UnreadableError(Exception):
    """A file that is not an image, or is truncated or corrupt; the message names it."""


@dataclass
class Source:
    """A data set: training and validation images, class names by label set, and notes for the user.

    ``prepare`` is called before the first image is read: slow work belongs there, unless the number or labels of the
    images depend on it, as with downloads.
    """

    train: Images
    val: Images
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    not_images: list[str] = field(default_factory=list)
    prepare: Callable[[], None] = lambda: None


class Files:
    """Image files, decoded on demand; ``readers`` load maps, by kind, from an image's path."""

    def __init__(
        self,
        paths: list[str],
        labels: Labels,
        channels: int,
        max_pixels: int | None,
        readers: Mapping[str, Callable[[str], Tensor]] | None = None,
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.channels = channels
        self.max_pixels = max_pixels
        self.readers = dict(readers or {})

    @property
    def maps(self) -> tuple[str, ...]:
        return tuple(self.readers)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> Picture:
        try:
            return decode(self.paths[index], self.channels, self.max_pixels)
        except Exception as error:  # damaged files make decoders raise anything
            raise UnreadableError(f"{self.paths[index]} ({error})") from None

    def read_map(self, index: int, kind: str) -> Tensor:
        return self.readers[kind](self.paths[index])

    def fingerprint(self) -> str:
        """Changes with any file's name, size or date."""
        found = hashlib.sha256(f"{self.channels} {self.max_pixels}".encode())
        for path in self.paths:
            found.update(f"{path}\0".encode(errors="surrogateescape"))
            with contextlib.suppress(OSError):  # what is gone is unreadable
                status = Path(path).stat()
                found.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        return found.hexdigest()


class Arrays:
    """Images in memory."""

    def __init__(self, images: Sequence[Image.Image], labels: Labels, channels: int) -> None:
        self.images = images
        self.labels = labels
        self.channels = channels

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> Picture:
        return convert(self.images[index], self.channels)


class Uint8Images:
    """8-bit RGB images [H, W, 3] in an array or a memory-mapped file; converted when read."""

    def __init__(
        self, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], labels: Labels, channels: int, title: str
    ) -> None:
        self.images = images
        self.labels = labels
        self.channels = channels
        self.title = title

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{self.title} {index}"

    def read(self, index: int) -> Picture:
        return convert(Image.fromarray(np.ascontiguousarray(self.images[index])), self.channels)

    def fingerprint(self) -> str:
        """Changes with any pixel."""
        found = hashlib.sha256(f"{self.channels} {self.title}".encode())
        for image in self.images:
            found.update(image.tobytes())
        return found.hexdigest()


class Subset:
    """Some images of a set."""

    def __init__(self, images: Images, indices: list[int]) -> None:
        self.images = images
        self.indices = indices
        self.labels: Labels = {name: [labels[i] for i in indices] for name, labels in images.labels.items()}

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.images.name(self.indices[index])

    def read(self, index: int) -> Picture:
        return self.images.read(self.indices[index])

    @property
    def maps(self) -> tuple[str, ...]:
        return kinds(self.images)

    def read_map(self, index: int, kind: str) -> Tensor:
        return read_map(self.images, self.indices[index], kind)

    def fingerprint(self) -> str | None:
        """None if the whole set has none."""
        whole = self.images.fingerprint() if isinstance(self.images, Fingerprinted) else None
        return whole and hashlib.sha256(f"{whole} {self.indices}".encode()).hexdigest()


def split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Splits off ``fraction`` of the images for validation, chosen by ``seed``."""
    held = set(shuffled(seed, Stream.VALIDATION_SPLIT, 0, len(images))[: round(fraction * len(images))].tolist())
    train = [i for i in range(len(images)) if i not in held]
    return Subset(images, train), Subset(images, sorted(held))
