"""data=folder: a folder of images, its splits and its classes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ijepa import config
from ijepa.data import maps
from ijepa.data.decode import MODES
from ijepa.data.files import Files
from ijepa.data.labels import read_labels
from ijepa.data.limits import ValueLimit
from ijepa.data.parts import find_parts
from ijepa.data.scan import SUFFIXES, FolderContents, first_names
from ijepa.data.sets import CLASS, UNLABELLED, Images, Labels, Source, UnreadableError, split
from ijepa.run_folder.outputs import output_kind
from ijepa.util.errors import ConfigError, UserError

FilesT = TypeVar("FilesT", bound=Files)


def folder(data: config.Data, seed: int) -> Source:
    """``data.root/train`` and ``data.root/val``, or ``data.root`` split by seed; first-level subfolders are classes.

    Raises:
        UserError: if ``data.root`` is not a folder, or contains no readable image.
    """
    root = existing_root(data)
    try:
        names = [entry.name for entry in os.scandir(root)]
    except OSError as error:
        raise ConfigError("data.root", data.root, f"cannot be listed: {error.strerror}") from None
    kind = output_kind(root, names)
    if kind is not None:
        raise ConfigError("data.root", data.root, f"is the folder of {kind}, not of images")
    found = find_parts(root, names, data)
    parts = [found.train] if found.val is None else [found.train, found.val]
    for part in parts:
        _refuse_missing_classes(part, data)
    if not parts[0].paths:
        raise ConfigError("data.root", data.root, f"no image ({' '.join(SUFFIXES)}) in {parts[0].root}")
    classes, labels = _listed_labels(parts, data) if data.labels is not None else _folder_labels(parts)
    files = [_build_files(part, of_part, data) for part, of_part in zip(parts, labels, strict=True)]
    train: Images
    val: Images
    train, val = files if len(files) == 2 and len(files[1]) else split(files[0], data.val_fraction, seed)
    notes = [*found.notes, *(note for part in parts for note in part.notes())]
    stray = [path for part in parts for path, name in zip(part.paths, part.classes, strict=True) if not name]
    if classes and stray and data.labels is None:
        notes.append(f"{_counted(stray, 'image')} in no class folder and without a label: {first_names(stray)}")
    return Source(train, val, classes, notes, [path for part in parts for path in part.others])


def _refuse_missing_classes(part: FolderContents, data: config.Data) -> None:
    """Raises ConfigError if a whole class, or the whole folder, cannot be listed."""
    for path, reason in part.unlisted.items():
        name = part.first_level(path)
        if not name or name not in part.classes:
            raise ConfigError("data.root", data.root, f"{path} cannot be listed: {reason}")


def labelled_source(
    train: FolderContents, val: FolderContents, data: config.Data, title: Callable[[str], str] = str
) -> Source:
    """A source whose images all have a class; ``title`` maps folder names to class names.

    Raises:
        UserError: if a split contains no readable image, or an image that is not in a class folder.
    """
    for part in (train, val):
        if part.root.is_dir():
            _refuse_missing_classes(part, data)
        if not part.paths:
            raise ConfigError("data.root", data.root, f"no image in {part.root}")
        if "" in part.classes:
            path = part.paths[part.classes.index("")]
            raise ConfigError("data.root", data.root, f"{path} is not in a class folder")
    classes = _class_names([train, val])
    files = [_build_files(part, _labels(part, classes), data) for part in (train, val)]
    notes = [note for part in (train, val) for note in part.notes()]
    others = [path for part in (train, val) for path in part.others]
    return Source(files[0], files[1], {CLASS: [title(name) for name in classes]}, notes, others)


def existing_root(data: config.Data) -> Path:
    """``data.root`` as a path.

    Raises:
        UserError: if it is not set or not an existing folder.
    """
    root = root_path(data)
    if not root.is_dir():
        problem = "not a folder; a list of images is data=list" if root.exists() else "no such folder"
        raise ConfigError("data.root", data.root, problem)
    return root


def root_path(data: config.Data) -> Path:
    """``data.root`` as a path; the folder need not exist yet.

    Raises:
        UserError: if it is not set.
    """
    if data.root is None:
        raise UserError("data.root is not set; add data.root=FOLDER")
    return Path(data.root).expanduser()


def value_limit(data: config.Data) -> ValueLimit | None:
    """How far the values of float images may be from the mean; None: no limit."""
    return None if data.max_deviations is None else ValueLimit(data.mean, data.std, data.max_deviations)


def check_picture_channels(data: config.Data) -> None:
    """Raises ConfigError if 8-bit pictures cannot have ``data.channels``."""
    if data.channels not in MODES:
        raise ConfigError("data.channels", data.channels, "these are 8-bit pictures; try 1, 3 or 4")


def cache_bytes(data: config.Data) -> int:
    """Memory for the decoded images of a part of the data."""
    return data.cache_mib * 2**20


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
    files = Files(part.paths, labels, data.channels, data.max_pixels, readers, value_limit(data), cache_bytes(data))
    check_readable(files, data)
    maps.check_any_map(readers, part.paths)
    return files


def _counted(items: list[str], noun: str) -> str:
    return f"1 {noun} is" if len(items) == 1 else f"{len(items)} {noun}s are"
