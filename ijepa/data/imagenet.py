"""data=imagenet: ILSVRC 2012 as class folders, with a flat val/, or as the published archives."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from torchvision.datasets.imagenet import load_meta_file, parse_devkit_archive, parse_train_archive, parse_val_archive

from ijepa import config
from ijepa.data.download import make_once
from ijepa.data.folders import existing_root, labelled_source
from ijepa.data.scan import FolderContents, scan_folder
from ijepa.data.sets import Source
from ijepa.util.errors import ConfigError

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
META = "meta.bin"
"""torchvision's cache of the devkit."""


def imagenet(data: config.Data, seed: int) -> Source:
    """``data.root/train`` and ``data.root/val`` with a folder per class; the published archives are unpacked if needed.

    Raises:
        UserError: if images, an archive or the devkit is missing or corrupt.
    """
    root = existing_root(data)
    if not (root / "train").is_dir():
        _unpack(root, TRAIN, "train", data, lambda target: parse_train_archive(root, folder=target))
    if not (root / "val").is_dir():
        _unpack(root, VAL, "val", data, lambda target: parse_val_archive(root, wnids=_val_wnids(data), folder=target))
    val = scan_folder(root / "val")
    if "" in val.classes:
        val = _with_devkit_classes(val, data)
    return labelled_source(scan_folder(root / "train"), val, data, wordnet_title)


def wordnet_title(wnid: str) -> str:
    """The class name of a WordNet ID, such as ``tench, Tinca tinca`` for n01440764; other names are unchanged."""
    return _wordnet_titles().get(wnid, wnid)


@cache
def _wordnet_titles() -> dict[str, str]:
    from timm.data import ImageNetInfo

    return {
        str(wnid): str(words) for wnid, words in ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True).items()
    }


def _with_devkit_classes(val: FolderContents, data: config.Data) -> FolderContents:
    """Adds the devkit's classes to a flat val/, by the number at the end of each file name."""
    wnids = _val_wnids(data)
    classes = []
    for path, name in zip(val.paths, val.classes, strict=True):
        number = Path(path).stem.rpartition("_")[2]
        if name or not number.isdecimal() or not 0 < int(number) <= len(wnids):
            problem = f"{path} is neither in a class folder nor named like ILSVRC2012_val_00000001.JPEG"
            raise ConfigError("data.root", data.root, problem)
        classes.append(wnids[int(number) - 1])
    return replace(val, classes=classes)


def _val_wnids(data: config.Data) -> list[str]:
    """The WordNet ID of each validation image, in order, from the devkit or torchvision's cache of it."""
    root = existing_root(data)
    if (root / META).is_file():
        try:
            return list(load_meta_file(root)[1])
        except Exception:  # torch.load can raise anything on a corrupt file
            raise ConfigError("data.root", data.root, f"{META} cannot be read; remove it") from None
    if not (root / DEVKIT).is_file():
        problem = f"its validation images are not in class folders, and {DEVKIT}, which lists their classes, is missing"
        raise ConfigError("data.root", data.root, f"{problem}; put it there")
    with tempfile.TemporaryDirectory() as temporary:  # the user's folder may be read-only
        try:
            parse_devkit_archive(temporary, os.fspath(root / DEVKIT))
        except (RuntimeError, OSError) as error:
            raise _unpack_error(DEVKIT, error, data) from None
        return list(load_meta_file(temporary)[1])


def _unpack(root: Path, archive: str, part: str, data: config.Data, parse: Callable[[str], None]) -> None:
    """Unpacks ``archive`` to ``root/part``; ``parse`` unpacks it to a path relative to ``root``."""
    if not (root / archive).is_file():
        problem = f"contains neither {part}/ with a folder per class nor {archive}"
        raise ConfigError("data.root", data.root, problem)

    def make(temporary: Path) -> Path:
        print(f"unpack   {archive}, once, after verifying its checksum: this takes a while", flush=True)
        parse(os.path.join(temporary.name, part))
        return temporary / part

    try:
        make_once(root / part, make)
    except (RuntimeError, OSError) as error:
        raise _unpack_error(archive, error, data) from None


def _unpack_error(archive: str, error: Exception, data: config.Data) -> ConfigError:
    """A one-line error; torchvision raises RuntimeError for a wrong checksum."""
    reason = error.strerror if isinstance(error, OSError) else "its checksum is wrong"
    return ConfigError("data.root", data.root, f"{archive} cannot be unpacked: {reason}")
