"""data=folder: a folder of images, its splits and its classes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ijepa import config
from ijepa.data import maps
from ijepa.data.sets import CLASS, Files, Images, Source, UnreadableError, split
from ijepa.util.errors import ConfigError, UserError

FilesT = TypeVar("FilesT", bound=Files)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz")


class Part(NamedTuple):
    """The contents of a folder.

    root: the folder.
    paths: image files, in a fixed order.
    classes: the first-level subfolder of each; "" for files directly in the folder.
    others: files that are not images.
    """

    root: Path
    paths: list[str]
    classes: list[str]
    others: list[str]


def folder(data: config.Data, seed: int) -> Source:
    """``data.root/train`` and ``data.root/val``, or ``data.root`` split by seed; first-level subfolders are classes.

    Raises:
        UserError: if there is no such folder, or no readable image in it.
    """
    root = directory(data)
    named = [root / part for part in ("train", "val") if (root / part).is_dir()]
    parts = [scan(part) for part in (named if root / "train" in named else [root])]
    if not parts[0].paths:
        raise ConfigError("data.root", data.root, f"no image ({' '.join(SUFFIXES)}) in {parts[0].root}")
    classes = _classes(parts)
    whole = len(classes) > 1 and "" not in classes
    files = [_files(part, classes if whole else [], data) for part in parts]
    train: Images
    val: Images
    train, val = files if len(files) == 2 and len(files[1]) else split(files[0], data.val_fraction, seed)
    return Source(train, val, {CLASS: classes} if whole else {}, *_left_out(parts))


def labelled(train: Part, val: Part, data: config.Data, title: Callable[[str], str] = str) -> Source:
    """Two splits in which every image has a class; ``title`` maps folder names to class names.

    Raises:
        UserError: if a split has no readable image, or an image without a class.
    """
    for part in (train, val):
        if not part.paths:
            raise ConfigError("data.root", data.root, f"no image in {part.root}")
        if "" in part.classes:
            path = part.paths[part.classes.index("")]
            raise ConfigError("data.root", data.root, f"{path} is not in a class folder")
    classes = _classes([train, val])
    files = [_files(part, classes, data) for part in (train, val)]
    return Source(files[0], files[1], {CLASS: [title(name) for name in classes]}, *_left_out([train, val]))


def directory(data: config.Data) -> Path:
    """``data.root``, which must exist.

    Raises:
        UserError: if it does not.
    """
    root = place(data)
    if not root.is_dir():
        raise ConfigError("data.root", data.root, "no such folder" if not root.exists() else "not a folder")
    return root


def place(data: config.Data) -> Path:
    """``data.root``, which need not exist yet.

    Raises:
        UserError: if it is not set.
    """
    if data.root is None:
        raise UserError("data.root is not set; add data.root=FOLDER")
    return Path(data.root).expanduser()


def scan(root: Path) -> Part:
    """The contents of ``root``, recursively; hidden files and folders are skipped, links are followed."""
    found = Part(root, [], [], [])
    seen: set[str] = set()
    start = len(os.path.join(root, ""))
    for path, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:  # a link back up the tree
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        first = path[start:].partition(os.sep)[0]
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                found.paths.append(os.path.join(path, name))
                found.classes.append(first)
            else:
                found.others.append(os.path.join(path, name))
    return found


def readable(files: FilesT, data: config.Data) -> FilesT:
    """Returns ``files`` after checking that at least one of them can be read.

    Raises:
        ConfigError: if none can.
    """
    fault = ""
    for index in range(len(files)):
        try:
            files.read(index)
            return files
        except UnreadableError as error:
            fault = fault or str(error)
    if fault:
        problem = f"none of its {len(files)} image files can be read; the first error: {fault}"
        raise ConfigError("data.root", data.root, problem)
    return files


def _classes(parts: list[Part]) -> list[str]:
    return sorted({name for part in parts for name in part.classes})


def _files(part: Part, classes: list[str], data: config.Data) -> Files:
    index = {name: i for i, name in enumerate(classes)}
    labels = {CLASS: [index[name] for name in part.classes]} if classes else {}
    readers = maps.readers(data)
    files = readable(Files(part.paths, labels, data.channels, data.max_pixels, readers), data)
    maps.refuse_strangers(readers, part.paths)
    return files


def _left_out(parts: list[Part]) -> tuple[list[str], list[str]]:
    """A note about files that are not images, if there are any, and their names."""
    others = [name for part in parts for name in part.others]
    if not others:
        return [], []
    shown = ", ".join(Path(name).name for name in others[:3]) + (", ..." if len(others) > 3 else "")
    return [f"{len(others)} files are not images and were skipped: {shown}"], others
