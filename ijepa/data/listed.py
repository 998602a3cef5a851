"""Data sets that list their images in files: Places205 and iNaturalist 2018."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ijepa import config
from ijepa.data.files import Files
from ijepa.data.folders import check_readable, existing_root, labelled_source, value_limit
from ijepa.data.scan import scan_folder
from ijepa.data.sets import CLASS, Source
from ijepa.util import reading
from ijepa.util.errors import ConfigError, UserError

PLACES_CLASSES = 205
PLACES_LISTS = ("trainvalsplit_places205", ".")
PLACES_IMAGES = (
    "data/vision/torralba/deeplearning/images256",
    "vision/torralba/deeplearning/images256",
    "images256",
    ".",
)
"""The path in the official archive, and shorter paths in common use."""
CHECKED_IMAGES = 20
"""Number of images, evenly spaced in the list, of which at least one must exist; checking all takes too long."""
MAX_JSON = 2**30
"""Bytes of a JSON file; CLEVR's and iNaturalist's have up to 300 MB."""


def places205(data: config.Data, seed: int) -> Source:
    """Places205: 2,448,873 and 20,500 images, 205 classes; from the official lists, or from a folder per class.

    Raises:
        UserError: if both are missing, a line of a list is malformed, or the listed images are missing.
    """
    root = existing_root(data)
    if (root / "train").is_dir():
        return labelled_source(scan_folder(root / "train"), scan_folder(root / "val"), data)
    lists = next((root / name for name in PLACES_LISTS if (root / name / "train_places205.csv").is_file()), None)
    if lists is None:
        problem = (
            f"contains neither train_places205.csv (also not in {PLACES_LISTS[0]}/) nor train/ with a folder per class"
        )
        raise ConfigError("data.root", data.root, problem)
    parts = [_read_list(lists / f"{part}_places205.csv", data) for part in ("train", "val")]
    names = {label: name.partition("/")[2].rpartition("/")[0] for listed in parts for name, label in listed}
    classes = [names.get(label) or f"class {label}" for label in range(PLACES_CLASSES)]
    train, val = (_build_files(listed, PLACES_IMAGES, data) for listed in parts)
    return Source(train, val, {CLASS: classes})


def inat18(data: config.Data, seed: int) -> Source:
    """The iNaturalist 2018 competition: 437,513 and 24,426 images, 8,142 classes, as listed in its JSON files.

    Raises:
        UserError: if a file is missing or malformed, or its images are missing.
    """
    root = existing_root(data)
    train, val = (root / f"{part}2018.json" for part in ("train", "val"))
    categories_file = (
        root / "categories.json"
    )  # published later: in the competition's own files, class names are numbers
    content = read_json(train, data)
    with one_line_errors(train, data):
        category_ids = sorted(category["id"] for category in content["categories"])
    categories = read_json(categories_file, data) if categories_file.is_file() else content["categories"]
    with one_line_errors(categories_file if categories_file.is_file() else train, data):
        names = {category["id"]: str(category["name"]) for category in categories}
        classes = [names[category_id] for category_id in category_ids]
    index = {category_id: i for i, category_id in enumerate(category_ids)}
    files = []
    for file in (train, val):
        with one_line_errors(file, data):
            if file != train:
                content = read_json(file, data)
            category = {item["image_id"]: item["category_id"] for item in content["annotations"]}
            listed = [(os.fspath(image["file_name"]), category.get(image["id"])) for image in content["images"]]
            if not listed:
                raise ValueError("it lists no images")
            unknown = [name for name, category_id in listed if category_id not in index]
            if unknown:
                raise ValueError(f"it lists no category for {unknown[0]}")
            labelled_names = [(name, index[category_id]) for name, category_id in listed]
        files.append(_build_files(labelled_names, (".",), data))
    return Source(files[0], files[1], {CLASS: classes})


def read_json(file: Path, data: config.Data, keys: Collection[str] | None = None) -> Any:
    """The contents of the JSON file; with ``keys``, only these keys of its objects, to save memory.

    Raises:
        ConfigError: if it is missing or not valid JSON.
    """
    keep = None if keys is None else lambda item: {key: item[key] for key in keys if key in item}
    with one_line_errors(file, data):
        try:
            return reading.read_json(file, MAX_JSON, keep)
        except OSError:
            raise
        except ValueError as error:
            raise ConfigError("data.root", data.root, f"{file} is not valid JSON: {error}") from None


@contextmanager
def one_line_errors(file: Path, data: config.Data) -> Iterator[None]:
    """Converts errors in reading ``file`` to a one-line ConfigError.

    Raises:
        ConfigError: names the file and what is missing or wrong.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise ConfigError("data.root", data.root, f"{file}: {error.strerror}") from None
    except KeyError as error:
        raise ConfigError(
            "data.root", data.root, f"{file} differs from the published file: {error} is missing"
        ) from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError("data.root", data.root, f"{file} differs from the published file: {error}") from None


def _read_list(file: Path, data: config.Data) -> list[tuple[str, int]]:
    """Image names and labels, from lines such as ``a/abbey/gsun_0003.jpg 0``."""
    listed = []
    with one_line_errors(file, data):
        for number, line in enumerate(reading.read_text(file, errors="surrogateescape").split("\n"), 1):
            if not line.strip():
                continue
            name, _, label = line.rstrip().rpartition(" ")
            if not name or not label.isdecimal() or int(label) >= PLACES_CLASSES:
                problem = f"should be an image and its class, 0 to {PLACES_CLASSES - 1}, not {line.strip()[:80]!r}"
                raise ConfigError("data.root", data.root, f"{file}, line {number}: {problem}")
            listed.append((name, int(label)))
        if not listed:
            raise ConfigError("data.root", data.root, f"{file} lists no images")
    return listed


def _build_files(listed: list[tuple[str, int]], candidates: tuple[str, ...], data: config.Data) -> Files:
    """The listed images, in the first of the folders ``candidates`` below data.root that contains any of them."""
    root = existing_root(data)
    checked = listed[:: max(len(listed) // CHECKED_IMAGES, 1)]
    for candidate in candidates:
        images = os.path.normpath(root / candidate)
        if any(os.path.isfile(os.path.join(images, name)) for name, _ in checked):  # noqa: PTH113  # faster than Path
            paths, labels = [os.path.join(images, name) for name, _ in listed], [label for _, label in listed]
            files = Files(paths, {CLASS: labels}, data.channels, data.max_pixels, limit=value_limit(data))
            return check_readable(files, data)
    folders = "" if candidates == (".",) else f" or its {', '.join(candidates[:-1])}"
    raise ConfigError("data.root", data.root, f"images such as {listed[0][0]} should be in it{folders}")
