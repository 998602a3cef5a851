"""data=folder: a folder of images, its splits and its classes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ijepa import config
from ijepa.data import maps
from ijepa.data.labels import read_labels
from ijepa.data.sets import CLASS, UNLABELLED, Files, Images, Labels, Source, UnreadableError, split
from ijepa.util.errors import ConfigError, UserError

FilesT = TypeVar("FilesT", bound=Files)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz")


class FolderContents(NamedTuple):
    """The files in a folder.

    root: the folder.
    paths: image files, in a fixed order.
    classes: the first-level subfolder of each image file; "" for files directly in ``root``.
    others: files that are not images.
    """

    root: Path
    paths: list[str]
    classes: list[str]
    others: list[str]


def folder(data: config.Data, seed: int) -> Source:
    """``data.root/train`` and ``data.root/val``, or ``data.root`` split by seed; first-level subfolders are classes.

    Raises:
        UserError: if ``data.root`` is not a folder, or contains no readable image.
    """
    root = existing_root(data)
    split_folders = [root / part for part in ("train", "val") if (root / part).is_dir()]
    parts = [scan_folder(part) for part in (split_folders if root / "train" in split_folders else [root])]
    if not parts[0].paths:
        raise ConfigError("data.root", data.root, f"no image ({' '.join(SUFFIXES)}) in {parts[0].root}")
    classes, labels = _listed_labels(parts, data) if data.labels is not None else _folder_labels(parts)
    files = [_build_files(part, of_part, data) for part, of_part in zip(parts, labels, strict=True)]
    train: Images
    val: Images
    train, val = files if len(files) == 2 and len(files[1]) else split(files[0], data.val_fraction, seed)
    notes, others = skipped_files(parts)
    stray = [path for part in parts for path, name in zip(part.paths, part.classes, strict=True) if not name]
    if classes and stray and data.labels is None:
        notes.append(f"{_counted(stray, 'image')} in no class folder and without a label: {_first_names(stray)}")
    return Source(train, val, classes, notes, others)


def labelled_source(
    train: FolderContents, val: FolderContents, data: config.Data, title: Callable[[str], str] = str
) -> Source:
    """A source whose images all have a class; ``title`` maps folder names to class names.

    Raises:
        UserError: if a split contains no readable image, or an image that is not in a class folder.
    """
    for part in (train, val):
        if not part.paths:
            raise ConfigError("data.root", data.root, f"no image in {part.root}")
        if "" in part.classes:
            path = part.paths[part.classes.index("")]
            raise ConfigError("data.root", data.root, f"{path} is not in a class folder")
    classes = _class_names([train, val])
    files = [_build_files(part, _labels(part, classes), data) for part in (train, val)]
    return Source(files[0], files[1], {CLASS: [title(name) for name in classes]}, *skipped_files([train, val]))


def existing_root(data: config.Data) -> Path:
    """``data.root`` as a path.

    Raises:
        UserError: if it is not set or not an existing folder.
    """
    root = root_path(data)
    if not root.is_dir():
        raise ConfigError("data.root", data.root, "no such folder" if not root.exists() else "not a folder")
    return root


def root_path(data: config.Data) -> Path:
    """``data.root`` as a path; the folder need not exist yet.

    Raises:
        UserError: if it is not set.
    """
    if data.root is None:
        raise UserError("data.root is not set; add data.root=FOLDER")
    return Path(data.root).expanduser()


def scan_folder(root: Path) -> FolderContents:
    """Lists ``root`` recursively; hidden files and folders are skipped, links are followed."""
    contents = FolderContents(root, [], [], [])
    visited: set[str] = set()
    start = len(os.path.join(root, ""))
    for path, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        if real in visited:  # a link back up the tree
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        class_folder = path[start:].partition(os.sep)[0]
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name.lower().endswith(SUFFIXES):
                contents.paths.append(os.path.join(path, name))
                contents.classes.append(class_folder)
            else:
                contents.others.append(os.path.join(path, name))
    return contents


def check_readable(files: FilesT, data: config.Data) -> FilesT:
    """Returns ``files`` unchanged if at least one of them can be read.

    Raises:
        ConfigError: if none can be read.
    """
    first_error = ""
    for index in range(len(files)):
        try:
            files.read(index)
            return files
        except UnreadableError as error:
            first_error = first_error or str(error)
    if first_error:
        problem = f"none of its {len(files)} image files can be read; the first error: {first_error}"
        raise ConfigError("data.root", data.root, problem)
    return files


def _class_names(parts: list[FolderContents]) -> list[str]:
    return sorted({name for part in parts for name in part.classes} - {""})


def _labels(part: FolderContents, classes: list[str]) -> Labels:
    index = {"": UNLABELLED} | {name: i for i, name in enumerate(classes)}
    return {CLASS: [index[name] for name in part.classes]}


def _folder_labels(parts: list[FolderContents]) -> tuple[dict[str, list[str]], list[Labels]]:
    """Class names by label set, and each part's labels: {} with fewer than two class folders."""
    classes = _class_names(parts)
    if len(classes) < 2:
        return {}, [{} for _ in parts]
    return {CLASS: classes}, [_labels(part, classes) for part in parts]


def _listed_labels(parts: list[FolderContents], data: config.Data) -> tuple[dict[str, list[str]], list[Labels]]:
    assert data.labels is not None
    table = read_labels(Path(data.labels))
    return table.classes, [*table.labels([part.paths for part in parts])]


def _build_files(part: FolderContents, labels: Labels, data: config.Data) -> Files:
    readers = maps.map_folders(data)
    files = check_readable(Files(part.paths, labels, data.channels, data.max_pixels, readers), data)
    maps.check_any_map(readers, part.paths)
    return files


def skipped_files(parts: list[FolderContents]) -> tuple[list[str], list[str]]:
    """A note about the files that are not images (none if all are), and their paths."""
    others = [name for part in parts for name in part.others]
    if not others:
        return [], []
    return [f"{len(others)} files are not images and were skipped: {_first_names(others)}"], others


def _first_names(paths: list[str]) -> str:
    return ", ".join(Path(name).name for name in paths[:3]) + (", ..." if len(paths) > 3 else "")


def _counted(items: list[str], noun: str) -> str:
    return f"1 {noun} is" if len(items) == 1 else f"{len(items)} {noun}s are"
