"""data=list: images that a table lists, with labels and splits."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ijepa import config
from ijepa.data.files import Files
from ijepa.data.folders import cache_bytes, check_readable, root_path, value_limit
from ijepa.data.scan import first_names
from ijepa.data.sets import UNLABELLED, Labels, Source, split
from ijepa.data.tables import check_label_sets, class_names, read_table
from ijepa.util.errors import ConfigError

SPLIT = "split"
TRAIN, VAL = ("train", "training"), ("val", "valid", "validation", "dev")
"""Values of the column of splits, in upper or lower case. Images of others are left out."""
KEYS = {False: "data.root", True: "data.val"}


class _Part(NamedTuple):
    """Some of the rows of a table: paths of files, and a class name for each label set."""

    paths: list[str]
    values: list[list[str]]


def image_list(data: config.Data, seed: int) -> Source:
    """The images that the table ``data.root`` lists; validation images are those of the table ``data.val``, or of its
    column ``split``, or a part chosen by seed. Every other column is a label set.

    Raises:
        UserError: if a table is missing or malformed, lists an image twice, or none of its images can be read.
    """
    root = root_path(data)
    columns, listed, left_out = _read(root, KEYS[False])
    train, val = listed
    if data.val is not None:
        if val is not None:
            raise ConfigError("data.val", data.val, f"{root.name} has a column {SPLIT}; omit one of them")
        path = root.absolute().parent / Path(data.val).expanduser()
        others, (held_out, further), left = _read(path, KEYS[True])
        if further is not None or others != columns:
            found = ", ".join([*others, *[SPLIT] * (further is not None)]) or "none"
            problem = f"has the columns {found} beside its files, {root.name} has {', '.join(columns) or 'none'}"
            raise ConfigError("data.val", data.val, problem)
        val, left_out = held_out, left_out + left
        twice = sorted(set(train.paths).intersection(val.paths))
        if twice:
            raise ConfigError("data.val", data.val, f"lists images of {root.name}, too: {first_names(twice)}")
    classes = {
        name: class_names(row[column] for part in (train, val) if part is not None for row in part.values)
        for column, name in enumerate(columns)
    }
    classes = {name: found for name, found in classes.items() if len(found) > 1}
    if not train.paths:
        raise ConfigError("data.root", data.root, "lists no training images")
    kept = [columns.index(name) for name in classes]
    files = [_files(part, classes, kept, data) for part in (train, val) if part is not None and part.paths]
    notes = [f"left out: {count} of the {SPLIT} {name}" for name, count in sorted(left_out.items())]
    notes += [f"{name} has fewer than two classes, so it is no label set" for name in columns if name not in classes]
    if len(files) == 2:
        return Source(files[0], files[1], classes, notes)
    if val is not None:
        notes.append(f"no image is of the {SPLIT} {VAL[0]}; data.val_fraction of the others are held out")
    return Source(*split(files[0], data.val_fraction, seed), classes, notes)


def _read(path: Path, key: str) -> tuple[list[str], tuple[_Part, _Part | None], Counter[str]]:
    """Names of label sets; images for training and validation, None without a column of splits; others by split."""
    if path.is_dir():
        raise ConfigError(key, path, "is a folder, not a list of images; try data=folder")
    columns, rows = read_table(path, key, plain=True)
    column = columns.index(SPLIT) if SPLIT in columns else None
    names = [name for name in columns if name != SPLIT]
    check_label_sets(names, path, key)
    folder, seen, left_out = path.absolute().parent, dict[str, int](), Counter[str]()
    train, val = _Part([], []), _Part([], [])
    for number, file, values in rows:
        image = os.path.normpath(os.path.join(folder, os.path.expanduser(file)))  # noqa: PTH111  # many times as fast
        if image in seen:
            raise ConfigError(key, path, f"line {number}: {file} is in line {seen[image]} already")
        seen[image] = number
        chosen = TRAIN[0] if column is None else values[column].lower()
        if chosen not in (*TRAIN, *VAL):
            left_out[values[column] if column is not None and values[column] else '""'] += 1
            continue
        part = train if chosen in TRAIN else val
        part.paths.append(image)
        part.values.append([value for at, value in enumerate(values) if at != column])
    return names, (train, None if column is None else val), left_out


def _files(part: _Part, classes: dict[str, list[str]], columns: list[int], data: config.Data) -> Files:
    labels: Labels = {}
    if classes:
        found = {}
        for (name, titles), column in zip(classes.items(), columns, strict=True):
            index = {"": UNLABELLED} | {title: at for at, title in enumerate(titles)}
            found[name] = [index[row[column]] for row in part.values]
        labels = found
    files = Files(part.paths, labels, data.channels, data.max_pixels, {}, value_limit(data), cache_bytes(data))
    return check_readable(files, data)
