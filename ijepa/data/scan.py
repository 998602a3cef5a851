"""Lists the images in a folder, and what was left out and why."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ijepa.run_folder.outputs import output_kind

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz")
SYSTEM_FOLDERS = frozenset(
    ["@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information",
     "lost+found"]
)  # fmt: skip
"""Folders of file systems, archives and thumbnails, in lower case; hidden ones are skipped anyway."""
SHOWN = 3
"""Names in a note."""


@dataclass
class FolderContents:
    """The files in a folder.

    Attributes:
        root: the folder.
        paths: image files, in a fixed order.
        classes: the first-level subfolder of each image file; "" for files directly in ``root``.
        others: files that are not images.
        outputs: folders that this software has written, and what they are; their files are not listed.
        unlisted: folders that cannot be listed, and why.
        repeated: links to folders that are listed already, and those.
    """

    root: Path
    paths: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)

    def first_level(self, path: str) -> str:
        """The first-level subfolder of a path below ``root``; "" for ``root`` itself."""
        parts = Path(os.path.relpath(path, self.root)).parts
        return parts[0] if parts else ""

    def notes(self) -> list[str]:
        """What a user should know."""
        notes = []
        if self.others:
            notes.append(f"{len(self.others)} files are not images and were skipped: {first_names(self.others)}")
        for kind in dict.fromkeys(self.outputs.values()):
            folders = [path for path, each in self.outputs.items() if each == kind]
            notes.append(f"skipped, {kind}, not images: {_first(folders)}")
        for path, reason in self.unlisted.items():
            notes.append(f"{path} cannot be listed ({reason}); its images are missing")
        for path, first in self.repeated.items():
            notes.append(f"{path} is a link to {first}, whose images are listed already; it was skipped")
        return notes


def scan_folder(root: Path) -> FolderContents:
    """Lists ``root`` recursively; links are followed, and hidden and system folders are skipped."""
    contents = FolderContents(root)
    start = len(os.path.join(root, ""))
    for path, names in _folders(contents, is_root=True):
        class_folder = path[start:].partition(os.sep)[0]
        for name in sorted(names):
            if name.startswith("."):
                continue
            if is_image(name):
                contents.paths.append(os.path.join(path, name))
                contents.classes.append(class_folder)
            else:
                contents.others.append(os.path.join(path, name))
    return contents


def holds_images(folder: Path) -> bool:
    """Whether `scan_folder` would find an image below a folder of its root, or could not list all of it."""
    contents = FolderContents(folder)
    found = any(is_image(name) for _, names in _folders(contents, is_root=False) for name in names)
    return found or bool(contents.unlisted)


def is_image(name: str) -> bool:
    """Whether a file of this name is an image; hidden ones are not."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _folders(contents: FolderContents, is_root: bool) -> Iterator[tuple[str, list[str]]]:
    """Each folder whose images count, and its files; what is left out is added to ``contents``.

    ``is_root``: its folder counts, whatever it is.
    """
    visited: dict[str, str] = {}

    def unlisted(error: OSError) -> None:
        contents.unlisted[str(error.filename)] = error.strerror or str(error)

    for path, folders, names in os.walk(contents.root, onerror=unlisted, followlinks=True):
        real = os.path.realpath(path)
        if real in visited:
            if not _is_inside(path, visited[real]):  # else a link back up the tree
                contents.repeated[path] = visited[real]
            folders.clear()
            continue
        visited[real] = path
        kind = None if is_root and path == str(contents.root) else output_kind(Path(path), names)
        if kind is not None:
            contents.outputs[path] = kind
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_system(name))
        yield path, names


def first_names(paths: list[str]) -> str:
    """The names of the first files."""
    return _first([Path(path).name for path in paths])


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def is_system(name: str) -> bool:
    """Whether a folder of this name is hidden, or one of `SYSTEM_FOLDERS`."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS
