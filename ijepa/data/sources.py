"""Where images come from: anything that has a length, images by index, and perhaps labels."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ijepa import config
from ijepa.data.decode import MODES, Picture, convert, decode
from ijepa.data.rendered import parts
from ijepa.data.workers import processes
from ijepa.errors import ConfigError, UserError
from ijepa.randomness import words

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz")
SPLIT_STREAM = 3
CLASS = "class"
"""The label set of sources that have one."""


Labels = Mapping[str, Sequence[int]]


class Images(Protocol):
    """A set of images. ``labels`` are class indices by label set, {} without; ``read`` raises `UnreadableError`.

    An image is a PIL image or a tensor [C, H, W] of float32, with as many channels as the model takes.
    """

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Picture: ...

    def name(self, index: int) -> str: ...


class UnreadableError(Exception):
    """A file that is no image, or only a part of one; the message names it."""


@dataclass
class Source:
    """A data set: training and validation images, class names by label set, and what the user should hear about it.

    ``prepare`` is called before the first image is read: what takes long, rendering or a download, belongs there.
    """

    train: Images
    val: Images
    classes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    not_images: list[str] = field(default_factory=list)
    prepare: Callable[[], None] = lambda: None


class Files:
    """Image files, decoded on demand."""

    def __init__(self, paths: list[str], labels: Labels, channels: int, max_pixels: int | None) -> None:
        self.paths = paths
        self.labels = labels
        self.channels = channels
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> Picture:
        try:
            return decode(self.paths[index], self.channels, self.max_pixels)
        except Exception as error:  # damaged files make decoders raise anything
            raise UnreadableError(f"{self.paths[index]} ({error})") from None


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


def folder(data: config.Data, seed: int) -> Source:
    """``data.root/train`` and ``data.root/val``, or ``data.root`` split by seed; first-level subfolders are classes.

    Raises:
        UserError: when there is no such folder, or no readable image in it.
    """
    if data.root is None:
        raise UserError("data.root is not set; add data.root=FOLDER")
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise ConfigError("data.root", data.root, "no such folder" if not root.exists() else "not a folder")
    named = [root / part for part in ("train", "val") if (root / part).is_dir()]
    roots = named if root / "train" in named else [root]
    scanned = [_scan(part) for part in roots]
    others = [name for _, foreign in scanned for name in foreign]
    notes = []
    if others:
        shown = ", ".join(Path(name).name for name in others[:3]) + (", ..." if len(others) > 3 else "")
        notes.append(f"{len(others)} files are not images and left out: {shown}")
    paths = [found for found, _ in scanned]
    if not paths[0]:
        raise ConfigError("data.root", data.root, f"no image ({' '.join(SUFFIXES)}) in {roots[0]}")
    classes = sorted({name for part, found in zip(roots, paths, strict=True) for name in _classes(part, found)})
    labelled = len(classes) > 1 and all(len(_classes(r, f)) == len(f) for r, f in zip(roots, paths, strict=True))
    index = {name: i for i, name in enumerate(classes)}
    files = [
        Files(
            found,
            {CLASS: [index[name] for name in _classes(part, found)]} if labelled else {},
            data.channels,
            data.max_pixels,
        )
        for part, found in zip(roots, paths, strict=True)
    ]
    train: Images
    val: Images
    for part in files:
        _readable(part, data.root)
    train, val = files if len(files) == 2 and len(files[1]) else _split(files[0], data.val_fraction, seed)
    return Source(train, val, {CLASS: classes} if labelled else {}, notes, others)


def digits(data: config.Data, seed: int) -> Source:
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, 10 classes."""
    if data.root is not None:
        raise ConfigError("data.root", data.root, "the digits need no folder; for your own images add data=folder")
    if data.channels not in MODES:
        raise ConfigError("data.channels", data.channels, "the digits are 8-bit pictures; 1, 3 or 4 would do")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = [Image.fromarray((picture * (255 / 16)).astype(np.uint8)) for picture in bunch.images]
    labels = {CLASS: [int(label) for label in bunch.target]}
    train, val = _split(Arrays(images, labels, data.channels), data.val_fraction, seed)
    return Source(train, val, {CLASS: [str(digit) for digit in range(10)]})


def scenes(data: config.Data, seed: int) -> Source:
    """Rendered scenes, labelled by count, and by distance, shape and colour of the nearest object."""
    if data.root is not None:
        raise ConfigError("data.root", data.root, "scenes need no folder; for your own images add data=folder")
    train, val, classes = parts(data)

    def prepare() -> None:
        for part in (train, val):
            part.ready(processes(data.workers, 1))

    return Source(train, val, classes, prepare=prepare)


def build(data: config.Data, seed: int) -> Source:
    """The source that the configuration names.

    Raises:
        UserError: when there is none of that name, or its images cannot be had.
    """
    if data.source in SOURCES:
        source = SOURCES[data.source](data, seed)
    elif "." in data.source:
        source = _foreign(data, seed)
    else:
        raise ConfigError("data.source", data.source, f"there are {', '.join(SOURCES)}, or package.module.function")
    if not len(source.train):
        raise ConfigError("data.val_fraction", data.val_fraction, "leaves no image for training; lower it")
    return source


def _foreign(data: config.Data, seed: int) -> Source:
    """What the user's own function makes."""
    module, _, name = data.source.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError("data.source", data.source, f"cannot be imported: {_first_line(error)}") from error
    try:
        source = function(data, seed)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError("data.source", data.source, f"fails: {_first_line(error)}") from error
    if not isinstance(source, Source):
        raise ConfigError("data.source", data.source, "returns no ijepa.data.sources.Source")
    return source


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


SOURCES = {"folder": folder, "digits": digits, "scenes": scenes}


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


def _split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Holds out ``fraction`` of the images, the same ones for a seed."""
    drawn = words(seed, SPLIT_STREAM, 0, np.arange(len(images)), 1)[:, 0]
    order = np.argsort(drawn, kind="stable")
    held = set(order[: round(fraction * len(images))].tolist())
    train = [i for i in range(len(images)) if i not in held]
    return Subset(images, train), Subset(images, sorted(held))


def _scan(root: Path) -> tuple[list[str], list[str]]:
    """Image files below ``root`` in a fixed order, and other files; hidden ones are passed over."""
    found: list[str] = []
    others: list[str] = []
    seen: set[str] = set()
    for directory, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:  # a link back up the tree
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                found.append(os.path.join(directory, name))
            else:
                others.append(os.path.join(directory, name))
    return found, others


def _classes(root: Path, paths: list[str]) -> list[str]:
    """The first-level subfolder of each file; files that lie directly in ``root`` have none and are left out."""
    parts = [Path(path).relative_to(root).parts for path in paths]
    return [part[0] for part in parts if len(part) > 1]


def _readable(files: Files, root: str) -> None:
    """Refuses a folder in which no file can be read; the first readable one ends the search."""
    if not len(files):
        return
    fault = ""
    for index in range(len(files)):
        try:
            files.read(index)
            return
        except UnreadableError as error:
            fault = fault or str(error)
    raise ConfigError("data.root", root, f"none of its {len(files)} image files can be read, the first: {fault}")
