"""Which folders below data.root hold training and validation images."""

import re
from pathlib import Path
from typing import NamedTuple

from ijepa import config
from ijepa.data.scan import FolderContents, first_names, holds_images, scan_folder
from ijepa.util.errors import ConfigError

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "dev", "test", "testing", "eval")
"""Names of parts, see `_part`; of the second, the first that exists holds the validation images."""
SYNONYMS = (("val", "valid", "validation", "dev", "eval"), ("test", "testing"))
"""Names of the same part: if two of them exist, data.val must tell which."""
ENDING = re.compile(r"[_-]?(set|images|data|\d{4})$")
"""What may follow the name of a part, as in test_set and val2017."""


class Parts(NamedTuple):
    """Training images, and validation images if they are in a folder of their own, and notes for the user."""

    train: FolderContents
    val: FolderContents | None
    notes: list[str]


def find_parts(root: Path, entries: list[str], data: config.Data) -> Parts:
    """The parts of ``root``, which holds ``entries``; the whole folder if it has none.

    Raises:
        ConfigError: if a folder could be a part or a class.
    """
    names = sorted(name for name in entries if not name.startswith(".") and (root / name).is_dir())
    train = [name for name in names if _part(name) in TRAIN]
    if len(train) > 1:
        train = [name for name in train if holds_images(root / name)]
    val = [name for name in names if _part(name) in VAL]
    if data.val is not None:
        chosen_name = data.val.rstrip("/")
        if chosen_name not in names:
            raise ConfigError("data.val", data.val, f"no such folder in {root}; it has {_listed(names) or 'none'}")
        if not holds_images(root / chosen_name):
            raise ConfigError("data.val", data.val, f"no image in {root / chosen_name}")
        val = [chosen_name]
        train = [name for name in train if name != chosen_name]
    if len(train) > 1:
        raise ConfigError("data.root", data.root, f"has {_listed(train)}; give the folder of one of them")
    if not train and not val:
        return Parts(scan_folder(root), None, [])
    if not train:
        return _without_train(root, names, val, data)
    notes = []
    contents = scan_folder(root / train[0])
    others = [name for name in names if name not in (*train, *val) and holds_images(root / name)]
    if others and not val and not any(contents.classes) and data.labels is None:
        problem = f"{train[0]}/ could be a class like {_listed(others)}, or the training images"
        raise ConfigError("data.root", data.root, f"{problem}; rename it, or give data.root={root / train[0]}")
    chosen = _validation(root, val, data)
    validation = None if chosen is None else scan_folder(root / chosen)
    labels_are_wanted = data.labels is None and data.val is None
    if chosen is not None and validation is not None and labels_are_wanted and _lacks_labels(contents, validation):
        notes.append(f"{chosen}/ has no class folders, so validation images are held out from {train[0]}/; "
                     f"data.val={chosen} uses it all the same")  # fmt: skip
        val.remove(chosen)
        chosen = validation = None
    unused = [name for name in [*val, *others] if name != chosen]
    if unused:
        notes.append(f"not used: {_listed(unused)}, beside {_listed([*train, *([chosen] if chosen else [])])}")
    if validation is None:
        return Parts(contents, None, notes)
    if (train[0], chosen) != ("train", "val"):
        notes.append(f"{train[0]}/ has the training images, {chosen}/ the validation images")
    notes += _unknown_classes(contents, validation)
    return Parts(contents, validation, notes)


def _without_train(root: Path, names: list[str], val: list[str], data: config.Data) -> Parts:
    """Parts of a root without a folder for training."""
    others = [name for name in names if name not in val and holds_images(root / name)]
    if data.val is not None:
        problem = f"{root} has no folder for training ({', '.join(TRAIN)})"
        raise ConfigError("data.val", data.val, f"{problem}; move the other images into {root / TRAIN[0]}")
    if not any(holds_images(root / name) for name in val):
        return Parts(scan_folder(root), None, [])
    if others:
        problem = f"{_listed(val)} could be a class like {_listed(others)}, or the validation images"
        raise ConfigError("data.root", data.root, f"{problem}; rename it, or move the others into {root / TRAIN[0]}")
    problem = f"has {_listed(val)}, but no folder for training ({', '.join(TRAIN)})"
    raise ConfigError("data.root", data.root, f"{problem}; to train on one, give data.root={root / val[0]}")


def _validation(root: Path, val: list[str], data: config.Data) -> str | None:
    """The folder of the validation images among ``val``; None if none has images."""
    if data.val is not None:
        return val[0]
    with_images = [name for name in val if holds_images(root / name)]
    for synonyms in SYNONYMS:
        same = [name for name in with_images if _part(name) in synonyms]
        if len(same) > 1:
            problem = f"has {_listed(same)}; choose one by data.val={same[0]}"
            raise ConfigError("data.root", data.root, problem)
    return min(with_images, key=lambda name: VAL.index(_part(name)), default=None)


def _lacks_labels(train: FolderContents, val: FolderContents) -> bool:
    """Whether ``val`` is a test set without labels: it has no class folder, and ``train`` has."""
    is_test = _part(Path(val.root).name) in SYNONYMS[1]
    return is_test and len(set(train.classes) - {""}) > 1 and not any(val.classes)


def _unknown_classes(train: FolderContents, val: FolderContents) -> list[str]:
    """A note about validation images whose class has no training image."""
    known = set(train.classes) - {""}
    unknown = [name for name in val.classes if name and name not in known]
    if not known or not unknown:
        return []
    classes = sorted(set(unknown))
    return [f"{len(unknown)} validation images are of classes without training images, so count as errors: "
            f"{first_names(classes)}"]  # fmt: skip


def _part(name: str) -> str:
    """The name in lower case, without what may follow that of a part."""
    return ENDING.sub("", name.lower())


def _listed(names: list[str]) -> str:
    shown = [f"{name}/" for name in names[:5]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
