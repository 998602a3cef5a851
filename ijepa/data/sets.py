"""The protocol of data sets (a length, images by index, optionally labels and maps), and its implementations."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ijepa.data.crops import RandomCrop, ReadsCrops
from ijepa.data.decode import Picture, convert
from ijepa.util.randomness import Stream, shuffled

CLASS = "class"
"""The label set's name in sources that have only one."""


UNLABELLED = -1
"""The class index of an image without a label."""

Labels = Mapping[str, Sequence[int]]


class Images(Protocol):
    """A set of images. ``labels``: class indices (or `UNLABELLED`) by label set. ``read`` may raise `UnreadableError`.

    An image is a PIL image or a float32 tensor [C, H, W], with the model's number of channels.
    """

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Picture: ...

    def name(self, index: int) -> str: ...


@runtime_checkable
class Fingerprinted(Protocol):
    """Images whose features can be cached, because their fingerprint changes when they change; None: do not cache."""

    def fingerprint(self) -> str | None: ...


@runtime_checkable
class HasDenseMaps(Protocol):
    """Images with per-pixel maps. ``maps``: the available kinds, such as "depth" and "segmentation".

    A map is [H, W], as large as its image. Depth is float32; 0, NaN and infinity mean unknown. Others are int64:
    "segmentation" and "colour" class indices, 0 for the background, -1 is ignored; "instances" numbers of objects, 0
    for none. ``read_map`` raises `UnreadableError` if a map is missing or cannot be read.
    """

    @property
    def maps(self) -> tuple[str, ...]: ...

    def read_map(self, index: int, kind: str) -> Tensor: ...


def map_kinds(images: Images) -> tuple[str, ...]:
    """The kinds of maps that ``images`` have; () if none."""
    return images.maps if isinstance(images, HasDenseMaps) else ()


def read_map(images: Images, index: int, kind: str) -> Tensor:
    """The map [H, W] of image ``index``; ``kind`` is one of `map_kinds`."""
    assert isinstance(images, HasDenseMaps)
    return images.read_map(index, kind)


def read_crop(images: Images, index: int, crop: RandomCrop) -> Tensor:
    """The crop [C, H, W] of an image, uint8 or float32; raises `UnreadableError`."""
    return images.read_crop(index, crop) if isinstance(images, ReadsCrops) else crop(images.read(index))


class UnreadableError(Exception):
    """A file is not an image, truncated or corrupt; the message names it."""


@dataclass
class Source:
    """A data set.

    Attributes:
        train: training images.
        val: validation images.
        classes: class names by label set.
        notes: notes for the user, one line each.
        not_images: paths of skipped files that are not images.
        prepare: called before the first image is read; does slow work, such as rendering, unless the number or labels
            of the images depend on it, as with downloads.
    """

    train: Images
    val: Images
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    not_images: list[str] = field(default_factory=list)
    prepare: Callable[[], None] = lambda: None


class Arrays:
    """PIL images in memory, of any mode; converted to ``channels`` when read."""

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
    """8-bit RGB images [H, W, 3] in an array or memory-mapped file; converted to ``channels`` when read."""

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
        digest = hashlib.sha256(f"{self.channels} {self.title}".encode())
        for image in self.images:
            digest.update(image.tobytes())
        return digest.hexdigest()


class Subset:
    """The images at ``indices`` of another set."""

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = np.asarray(indices, dtype=np.int64)  # shared by processes, unlike a list
        self.labels: Labels = {name: [labels[i] for i in indices] for name, labels in images.labels.items()}

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.images.name(int(self.indices[index]))

    def read(self, index: int) -> Picture:
        return self.images.read(int(self.indices[index]))

    def read_crop(self, index: int, crop: RandomCrop) -> Tensor:
        """See `ijepa.data.crops.ReadsCrops`."""
        if getattr(self.read, "__func__", None) is not Subset.read:  # as in Files
            return crop(self.read(index))
        return read_crop(self.images, int(self.indices[index]), crop)

    @property
    def maps(self) -> tuple[str, ...]:
        return map_kinds(self.images)

    def read_map(self, index: int, kind: str) -> Tensor:
        return read_map(self.images, int(self.indices[index]), kind)

    def fingerprint(self) -> str | None:
        """Changes with the other set's fingerprint and the indices; None if that set has none."""
        whole = self.images.fingerprint() if isinstance(self.images, Fingerprinted) else None
        return whole and hashlib.sha256(f"{whole} {self.indices.tolist()}".encode()).hexdigest()


def has_label(images: Images, name: str) -> NDArray[np.bool_]:
    """Whether each image has a label in label set ``name``: [n]."""
    return np.asarray(images.labels[name], dtype=np.int64) != UNLABELLED


def split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Splits off ``fraction`` of the images for validation, chosen by ``seed``, whatever their labels."""
    validation = set(shuffled(seed, Stream.VALIDATION_SPLIT, 0, len(images))[: round(fraction * len(images))].tolist())
    train = [i for i in range(len(images)) if i not in validation]
    return Subset(images, train), Subset(images, sorted(validation))
