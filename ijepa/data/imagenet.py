"""data=imagenet: ILSVRC 2012 as class folders, with a flat val/, or as the published archives."""

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from torchvision.datasets.imagenet import load_meta_file, parse_devkit_archive, parse_train_archive, parse_val_archive

from ijepa import config
from ijepa.data.download import once
from ijepa.data.folders import Part, directory, labelled, scan
from ijepa.data.sets import Source
from ijepa.util.errors import ConfigError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
META = "meta.bin"
"""torchvision's cache of the devkit."""


def imagenet(data: config.Data, seed: int) -> Source:
    """``data.root/train`` and ``data.root/val``, a folder per class; unpacked if there are only the archives.

    Raises:
        UserError: if something is missing.
    """
    root = directory(data)
    if not (root / "train").is_dir():
        _unpack(root, TRAIN, "train", data, lambda target: parse_train_archive(root, folder=target))
    if not (root / "val").is_dir():
        _unpack(root, VAL, "val", data, lambda target: parse_val_archive(root, wnids=_labels(data), folder=target))
    val = scan(root / "val")
    if "" in val.classes:
        val = _in_classes(val, data)
    return labelled(scan(root / "train"), val, data, title)


def title(wnid: str) -> str:
    """The words of a WordNet ID, such as ``tench, Tinca tinca``; other names are unchanged."""
    return _words().get(wnid, wnid)


@cache
def _words() -> dict[str, str]:
    from timm.data import ImageNetInfo

    return {
        str(wnid): str(words) for wnid, words in ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True).items()
    }


def _in_classes(val: Part, data: config.Data) -> Part:
    """A flat val/ with the classes from the devkit, by the number at the end of a file's name."""
    wnids = _labels(data)
    classes = []
    for path, name in zip(val.paths, val.classes, strict=True):
        number = Path(path).stem.rpartition("_")[2]
        if name or not number.isdecimal() or not 0 < int(number) <= len(wnids):
            problem = f"{path} is neither in a class folder nor named like ILSVRC2012_val_00000001.JPEG"
            raise ConfigError("data.root", data.root, problem)
        classes.append(wnids[int(number) - 1])
    return val._replace(classes=classes)


def _labels(data: config.Data) -> list[str]:
    """The class of each validation image, by number, from the devkit or from torchvision's cache of it."""
    root = directory(data)
    if (root / META).is_file():
        try:
            return list(load_meta_file(root)[1])
        except Exception:  # whatever torch.load makes of it
            raise ConfigError("data.root", data.root, f"{META} cannot be read; remove it") from None
    if not (root / DEVKIT).is_file():
        problem = f"its validation images are not in class folders, and {DEVKIT}, which lists their classes, is missing"
        raise ConfigError("data.root", data.root, f"{problem}; put it there")
    with tempfile.TemporaryDirectory() as temporary:  # the user's folder may be read-only
        try:
            parse_devkit_archive(temporary, os.fspath(root / DEVKIT))
        except (RuntimeError, OSError) as error:
            raise _faulty(DEVKIT, error, data) from None
        return list(load_meta_file(temporary)[1])


def _unpack(root: Path, archive: str, part: str, data: config.Data, parse: Callable[[str], None]) -> None:
    """Unpacks an archive to ``root/part``; ``parse`` unpacks to a path below ``root``."""
    if not (root / archive).is_file():
        problem = f"contains neither {part}/ with a folder per class nor {archive}"
        raise ConfigError("data.root", data.root, problem)

    def make(temporary: Path) -> Path:
        print(f"unpack   {archive}, once, after verifying its checksum: this takes a while", flush=True)
        parse(os.path.join(temporary.name, part))
        return temporary / part

    try:
        once(root / part, make)
    except (RuntimeError, OSError) as error:
        raise _faulty(archive, error, data) from None


def _faulty(archive: str, error: Exception, data: config.Data) -> ConfigError:
    """One line; a RuntimeError of torchvision means a wrong checksum."""
    reason = error.strerror if isinstance(error, OSError) else "its checksum is wrong"
    return ConfigError("data.root", data.root, f"{archive} cannot be unpacked: {reason}")
