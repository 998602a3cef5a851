"""Data sets as torchvision downloads and reads them: Food-101, Flowers-102, Oxford-IIIT Pet, DTD, EuroSAT, SVHN,
Places365.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torchvision import datasets

from ijepa import config
from ijepa.data.download import DOWNLOAD_ERRORS, make_once
from ijepa.data.files import Files
from ijepa.data.folders import cache_bytes, check_picture_channels, check_readable, root_path, value_limit
from ijepa.data.sets import CLASS, Images, Source, Uint8Images, split
from ijepa.util.errors import ConfigError

ARCHIVES = (".tar", ".tgz", ".gz", ".zip")


class Published(NamedTuple):
    """A data set of torchvision.

    Attributes:
        dataset: its class.
        folder: below data.root, complete if it exists.
        is_base: whether the class makes that folder below its root; else the folder is its root.
        size: of the download.
        train: values of ``split`` for training images; empty: there is no official split.
        val: likewise, for validation images.
        options: further arguments.
    """

    dataset: Any
    folder: str
    is_base: bool
    size: str
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


FOOD101 = Published(datasets.Food101, "food-101", True, "5 GB", ("train",), ("test",))
FLOWERS102 = Published(datasets.Flowers102, "flowers-102", True, "345 MB", ("train", "val"), ("test",))
PETS = Published(datasets.OxfordIIITPet, "oxford-iiit-pet", True, "811 MB", ("trainval",), ("test",))
DTD = Published(datasets.DTD, "dtd", True, "625 MB", ("train", "val"), ("test",))
EUROSAT = Published(datasets.EuroSAT, "eurosat", True, "94 MB")
SVHN = Published(datasets.SVHN, "svhn", False, "246 MB", ("train",), ("test",))
PLACES365 = Published(
    datasets.Places365, "places365", False, "25 GB", ("train-standard",), ("val",), (("small", True),)
)


def food101(data: config.Data, seed: int) -> Source:
    """Food-101: 75,750 and 25,250 photographs of 101 dishes, up to 512 pixels."""
    return _source(FOOD101, data, seed)


def flowers102(data: config.Data, seed: int) -> Source:
    """Oxford Flowers-102: 2,040 (its training and validation images) and 6,149 photographs, 102 classes."""
    return _source(FLOWERS102, data, seed)


def pets(data: config.Data, seed: int) -> Source:
    """Oxford-IIIT Pet: 3,680 and 3,669 photographs of 37 breeds."""
    return _source(PETS, data, seed)


def dtd(data: config.Data, seed: int) -> Source:
    """Describable Textures, first partition: 3,760 (training and validation) and 1,880 images, 47 classes."""
    return _source(DTD, data, seed)


def eurosat(data: config.Data, seed: int) -> Source:
    """EuroSAT, RGB: 27,000 satellite images of 64x64 pixels, 10 classes, split by seed."""
    return _source(EUROSAT, data, seed)


def svhn(data: config.Data, seed: int) -> Source:
    """Street View House Numbers: 73,257 and 26,032 digits of 32x32 pixels."""
    return _source(SVHN, data, seed)


def places365(data: config.Data, seed: int) -> Source:
    """Places365, 256x256 pixels: 1,803,460 and 36,500 photographs, 365 classes."""
    return _source(PLACES365, data, seed)


def _source(published: Published, data: config.Data, seed: int) -> Source:
    """Reads the data set below data.root; downloads it first if it is not there.

    Raises:
        ConfigError: if it could not be downloaded, or is corrupt.
    """
    check_picture_channels(data)
    root = root_path(data)
    _download(published, root)
    folder = root if published.is_base else root / published.folder
    parts: list[Images] = []
    classes: Sequence[str] = ()
    for splits in [published.train, published.val] if published.train else [()]:
        try:
            found: list[Any] = [published.dataset(folder, **_options(published, name)) for name in splits or [None]]
        except (RuntimeError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            place, reason = root / published.folder, str(error).partition("\n")[0]
            problem = f"{place} is corrupt ({reason}); remove it, then it is downloaded again"
            raise ConfigError("data.root", data.root, problem) from None
        classes = getattr(found[0], "classes", ()) or tuple(map(str, range(10)))  # SVHN: digits
        parts.append(_images(found, data, published.folder))
    train, val = parts if len(parts) == 2 else split(parts[0], data.val_fraction, seed)
    return Source(train, val, {CLASS: [str(name) for name in classes]})


def _options(published: Published, name: str | None) -> dict[str, Any]:
    return {**dict(published.options), **({} if name is None else {"split": name})}


def _download(published: Published, root: Path) -> None:
    def make(temporary: Path) -> Path:
        size = published.size
        print(f"download {published.dataset.__name__} ({size}), once; cached in {root}", flush=True)
        folder = temporary if published.is_base else temporary / published.folder
        folder.mkdir(exist_ok=True)
        names: list[str | None] = [*published.train, *published.val] or [None]
        for name in names:
            published.dataset(folder, download=True, **_options(published, name))
        complete = temporary / published.folder
        for path in complete.iterdir():
            if path.suffix in ARCHIVES:  # unpacked beside it
                path.unlink()
        return complete

    try:
        root.mkdir(parents=True, exist_ok=True)
        make_once(root / published.folder, make)
    except DOWNLOAD_ERRORS as error:
        reason = getattr(error, "reason", None) or str(error).partition("\n")[0]
        problem = f"{published.dataset.__name__} could not be downloaded ({reason}); put torchvision's folder " \
                  f"{published.folder} there yourself"  # fmt: skip
        raise ConfigError("data.root", root, problem) from None
    except OSError as error:
        raise ConfigError("data.root", root, f"cannot be written: {error.strerror}") from None


def _images(found: list[Any], data: config.Data, title: str) -> Images:
    """The images of torchvision's datasets: the array of SVHN, else their files, whose paths and labels are read."""
    if hasattr(found[0], "data"):
        pixels = np.concatenate([np.ascontiguousarray(part.data.transpose(0, 2, 3, 1)) for part in found])
        labels = [int(label) for part in found for label in part.labels]
        return Uint8Images(pixels, {CLASS: labels}, data.channels, title)
    pairs = [pair for part in found for pair in _listed(part)]
    paths, labels = [str(path) for path, _ in pairs], [int(label) for _, label in pairs]
    files = Files(paths, {CLASS: labels}, data.channels, data.max_pixels, {}, value_limit(data), cache_bytes(data))
    return check_readable(files, data)


def _listed(dataset: Any) -> list[tuple[Any, int]]:
    """Paths and classes of the files of a dataset; most of torchvision's keep them in private attributes."""
    for name in ("samples", "imgs"):
        if hasattr(dataset, name):
            return list(getattr(dataset, name))
    files = dataset._image_files if hasattr(dataset, "_image_files") else dataset._images
    return list(zip(files, dataset._labels, strict=True))
