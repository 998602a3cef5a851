"""Where images come from."""

import importlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ijepa import config
from ijepa.data import maps
from ijepa.data.decode import MODES
from ijepa.data.rendered import parts
from ijepa.data.sets import CLASS, Arrays, Files, Images, Source, UnreadableError, split
from ijepa.data.workers import processes
from ijepa.errors import ConfigError, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz")


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
    readers = maps.readers(data)
    files = [
        Files(
            found,
            {CLASS: [index[name] for name in _classes(part, found)]} if labelled else {},
            data.channels,
            data.max_pixels,
            readers,
        )
        for part, found in zip(roots, paths, strict=True)
    ]
    train: Images
    val: Images
    for part in files:
        _readable(part, data.root)
        maps.refuse_strangers(readers, part.paths)
    train, val = files if len(files) == 2 and len(files[1]) else split(files[0], data.val_fraction, seed)
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
    train, val = split(Arrays(images, labels, data.channels), data.val_fraction, seed)
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
    for name in ("depth_root", "segmentation_root"):
        if data.source in SOURCES and data.source != "folder" and getattr(data, name) is not None:
            raise ConfigError(f"data.{name}", getattr(data, name), "is for the images of data=folder; leave it out")
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
        raise ConfigError("data.source", data.source, "returns no ijepa.data.sets.Source")
    return source


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


SOURCES = {"folder": folder, "digits": digits, "scenes": scenes}


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
