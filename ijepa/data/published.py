"""Data sets that are downloaded on first use: CIFAR-10 and -100, STL-10, Imagenette."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100, STL10

from ijepa import config
from ijepa.data.download import Archive, fetch_archive
from ijepa.data.folders import check_picture_channels, labelled_source, root_path
from ijepa.data.imagenet import wordnet_title
from ijepa.data.scan import scan_folder
from ijepa.data.sets import CLASS, Source, Uint8Images
from ijepa.util.errors import ConfigError
from ijepa.util.reading import read_bytes

IMAGENETTE = Archive(
    "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
    "3df6f0d01a2c9592104656642f5e78a3",
    "imagenette2-320",
    "326 MB",
)
STL_IMAGES = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
"""Images per file, to detect truncated files."""
STL_SHAPE = (3, 96, 96)
"""Shape of an image in STL-10's files: channels, columns, rows."""


def cifar10(data: config.Data, seed: int) -> Source:
    """CIFAR-10: 50,000 and 10,000 images of 32x32 pixels, 10 classes."""
    return _cifar(CIFAR10, data, "cifar10")


def cifar100(data: config.Data, seed: int) -> Source:
    """CIFAR-100: 50,000 and 10,000 images of 32x32 pixels, 100 classes."""
    return _cifar(CIFAR100, data, "cifar100")


def stl10(data: config.Data, seed: int) -> Source:
    """STL-10's labelled images: 5,000 and 8,000 of 96x96 pixels, 10 classes."""
    folder = _stl_folder(data)
    classes = _read_bytes(folder / "class_names.txt", data).decode(errors="replace").split()
    parts = []
    for part in ("train", "test"):
        labels = [value - 1 for value in _read_bytes(folder / f"{part}_y.bin", data)]
        if len(labels) != STL_IMAGES[part] or not set(labels) <= set(range(len(classes))):
            raise _corrupt_error(folder / f"{part}_y.bin", data)
        parts.append(Uint8Images(_stl_images(folder, part, data), {CLASS: labels}, data.channels, f"stl10 {part}"))
    return Source(parts[0], parts[1], {CLASS: classes})


def stl10_unlabelled(data: config.Data, seed: int) -> Source:
    """STL-10 for pretraining: its 100,000 unlabelled and 5,000 training images, all without labels."""
    folder = _stl_folder(data)
    train = [image for part in ("unlabeled", "train") for image in _stl_images(folder, part, data)]
    test = _stl_images(folder, "test", data)
    notes = ["its training images have no labels; evaluate with data=stl10"]
    return Source(
        Uint8Images(train, {}, data.channels, "stl10 unlabelled"),
        Uint8Images(test, {}, data.channels, "stl10 test"),
        {},
        notes,
    )


def imagenette(data: config.Data, seed: int) -> Source:
    """Imagenette, ten easy classes of ImageNet: 9,469 and 3,925 images, the shorter side 320 pixels."""
    folder = fetch_archive(IMAGENETTE, root_path(data))
    return labelled_source(scan_folder(folder / "train"), scan_folder(folder / "val"), data, wordnet_title)


def _cifar(dataset: type[CIFAR10], data: config.Data, name: str) -> Source:
    check_picture_channels(data)
    root = root_path(data)
    folder = fetch_archive(Archive(dataset.url, dataset.tgz_md5, dataset.base_folder, "170 MB"), root)
    try:
        train, test = (dataset(root, train=part) for part in (True, False))
    except RuntimeError:  # a file is missing, or its checksum is wrong
        raise _corrupt_error(folder, data) from None
    parts = [
        Uint8Images(split.data, {CLASS: list(split.targets)}, data.channels, f"{name} {part}")
        for part, split in (("train", train), ("test", test))
    ]
    return Source(parts[0], parts[1], {CLASS: [str(name) for name in train.classes]})


def _stl_folder(data: config.Data) -> Path:
    check_picture_channels(data)
    return fetch_archive(Archive(STL10.url, STL10.tgz_md5, STL10.base_folder, "2.6 GB"), root_path(data))


def _stl_images(folder: Path, part: str, data: config.Data) -> NDArray[np.uint8]:
    """The images [n, 96, 96, 3], memory-mapped; torchvision would verify 3 GB and load them in every process."""
    file, shape = folder / f"{part}_X.bin", (STL_IMAGES[part], *STL_SHAPE)
    if not file.is_file() or file.stat().st_size != np.prod(shape):
        raise _corrupt_error(file, data)
    return np.asarray(np.memmap(file, np.uint8, "r", shape=shape)).transpose(0, 3, 2, 1)


def _read_bytes(file: Path, data: config.Data) -> bytes:
    try:
        return read_bytes(file)
    except (OSError, ValueError):
        raise _corrupt_error(file, data) from None


def _corrupt_error(path: Path, data: config.Data) -> ConfigError:
    folder = path if path.is_dir() else path.parent
    return ConfigError("data.root", data.root, f"{path} is corrupt; remove {folder}, then it is downloaded again")
