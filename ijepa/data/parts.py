"""Which folders below data.root hold training and validation images."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ijepa import config
from ijepa.data.scan import FolderContents, first_names, holds_images, is_image, is_system, scan_folder
from ijepa.util import commands
from ijepa.util.errors import ConfigError

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "dev", "holdout", "test", "testing", "eval", "evaluation")
"""Names of parts, see `_read`; of the second, the first that exists holds the validation images."""
SYNONYMS = (("val", "valid", "validation", "dev", "holdout", "eval", "evaluation"), ("test", "testing"))
"""Names of the same part: if two of them exist, data.val must tell which."""
FILLERS = frozenset(["set", "split", "data", "dataset", "images", "image", "imgs", "img", "photos", "pictures"])
"""Words that may accompany the name of a part, as in test_set and "training data"; years may, too."""
SHORT = frozenset(["tr", "te", "ts", "va"])
"""What could be short for parts, or classes, e.g. languages."""
WORD = re.compile(r"\d+|[^\W\d_]+")
CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
NUMBERING = re.compile(r"^\d{1,2}[\W_]+")
"""Before a name, as in 1_train and "02 test"."""


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
    names = sorted(name for name in entries if not is_system(name) and (root / name).is_dir())
    train, val = _named(root, names)
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
        _refuse_hidden_parts(root, names, data)
        return Parts(scan_folder(root), None, [])
    if not train:
        return _without_train(root, names, val, data)
    notes = []
    contents = scan_folder(root / train[0])
    others = [name for name in names if name not in (*train, *val) and holds_images(root / name)]
    if others and not val and not any(contents.classes) and data.labels is None:
        problem = f"{train[0]}/ could be a class like {_listed(others)}, or the training images"
        raise ConfigError(
            "data.root", data.root, f"{problem}; rename it, or give {commands.override('data.root', root / train[0])}"
        )
    chosen = _validation(root, val, data)
    validation = None if chosen is None else scan_folder(root / chosen)
    if chosen is not None and (root / chosen).samefile(root / train[0]):
        problem = f"{chosen}/ and {train[0]}/ are the same folder, so every validation image would be a training image"
        raise ConfigError("data.root", data.root, f"{problem}; remove the link")
    labels_are_wanted = data.labels is None and data.val is None
    if chosen is not None and validation is not None and labels_are_wanted and _lacks_labels(contents, validation):
        notes.append(f"{chosen}/ has no class folders, so validation images are held out from {train[0]}/; "
                     f"{commands.override('data.val', chosen)} uses it all the same")  # fmt: skip
        val.remove(chosen)
        chosen = validation = None
    unused = [name for name in [*val, *others] if name != chosen]
    if unused:
        notes.append(f"not used: {_listed(unused)}, beside {_listed([*train, *([chosen] if chosen else [])])}")
    loose = sorted(name for name in entries if is_image(name) and (root / name).is_file())
    if loose:
        notes.append(f"not used: {len(loose)} images beside {train[0]}/, in no folder: {first_names(loose)}")
    if validation is None:
        return Parts(contents, None, notes)
    if (train[0], chosen) != ("train", "val"):
        notes.append(f"{train[0]}/ has the training images, {chosen}/ the validation images")
    return Parts(contents, validation, notes)


def _named(root: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """The folders that are named as parts for training and for validation.

    If none is, as in seg_train and seg_test: those whose names are the same but for the part.
    """
    read = {name: _read(name) for name in names}
    train = [name for name, (part, rest) in read.items() if part in TRAIN and not rest]
    val = [name for name, (part, rest) in read.items() if part in VAL and not rest]
    if len(train) > 1:
        train = [name for name in train if holds_images(root / name)]
    if train or val:
        return train, val
    parts = {name: found for name, found in read.items() if found[0] and holds_images(root / name)}
    rests = [{rest for part, rest in parts.values() if part in kind} for kind in (TRAIN, VAL)]
    paired = {name: part for name, (part, rest) in parts.items() if rest in rests[0] & rests[1]}
    return [n for n, part in paired.items() if part in TRAIN], [n for n, part in paired.items() if part in VAL]


def _refuse_hidden_parts(root: Path, names: list[str], data: config.Data) -> None:
    """Raises ConfigError if the parts are a level below, as in images/train, or could be meant by short names."""
    if data.labels is not None:
        return
    divided = {}
    for name in names:
        inside = [entry.name for entry in _folders(root / name)]
        train, val = _named(root / name, inside)
        if any(holds_images(root / name / part) for part in train) and val:
            divided[name] = [*train, *val]
        elif holds_images(root / name):
            divided = {}
            break
    if divided:
        first, parts = next(iter(divided.items()))
        problem = f"{first}/ is divided into {_listed(parts)}, which would all be training images"
        raise ConfigError("data.root", data.root, f"{problem}; try {commands.override('data.root', root / first)}")
    short = [name for name in names if name.lower() in SHORT and holds_images(root / name)]
    if "tr" in map(str.lower, short) and len(short) == len([name for name in names if holds_images(root / name)]) > 1:
        problem = f"{_listed(short)} could be classes, or training and validation images"
        raise ConfigError("data.root", data.root, f"{problem}; rename them")


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)
    except OSError:  # said when it is scanned
        return []


def _without_train(root: Path, names: list[str], val: list[str], data: config.Data) -> Parts:
    """Parts of a root without a folder for training."""
    others = [name for name in names if name not in val and holds_images(root / name)]
    if data.val is not None:
        problem = f"{root} has no folder for training ({', '.join(TRAIN)})"
        raise ConfigError(
            "data.val", data.val, f"{problem}; move the other images into {commands.typed(root / TRAIN[0])}"
        )
    if not any(holds_images(root / name) for name in val):
        return Parts(scan_folder(root), None, [])
    if others:
        problem = f"{_listed(val)} could be a class like {_listed(others)}, or the validation images"
        raise ConfigError(
            "data.root", data.root, f"{problem}; rename it, or move the others into {commands.typed(root / TRAIN[0])}"
        )
    problem = f"has {_listed(val)}, but no folder for training ({', '.join(TRAIN)})"
    raise ConfigError(
        "data.root", data.root, f"{problem}; to train on one, give {commands.override('data.root', root / val[0])}"
    )


def _validation(root: Path, val: list[str], data: config.Data) -> str | None:
    """The folder of the validation images among ``val``; None if none has images."""
    if data.val is not None:
        return val[0]
    with_images = [name for name in val if holds_images(root / name)]
    for synonyms in SYNONYMS:
        same = [name for name in with_images if _part(name) in synonyms]
        if len(same) > 1:
            problem = f"has {_listed(same)}; choose one by {commands.override('data.val', same[0])}"
            raise ConfigError("data.root", data.root, problem)
    return min(with_images, key=lambda name: VAL.index(_part(name)), default=None)


def _lacks_labels(train: FolderContents, val: FolderContents) -> bool:
    """Whether ``val`` is a test set without labels: it has no class folder, and ``train`` has."""
    is_test = _part(Path(val.root).name) in SYNONYMS[1]
    return is_test and len(set(train.classes) - {""}) > 1 and not any(val.classes)


def _part(name: str) -> str:
    return _read(name)[0]


def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """The part that a folder's name contains, in lower case, and its other words and numbers; "" if it contains none.

    Numbering before the name, years and `FILLERS` do not count.
    """
    name = NUMBERING.sub("", name)
    words = [word.lower() for run in WORD.findall(name) for word in CAPITAL.split(run)]
    parts = [word for word in words if word in (*TRAIN, *VAL)]
    if len(parts) != 1:
        return "", ()
    rest = [word for word in words if word not in (*parts, *FILLERS) and not re.fullmatch(r"(19|20)\d\d", word)]
    return parts[0], tuple(rest)


def _listed(names: list[str]) -> str:
    shown = [f"{name}/" for name in names[:5]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
