"""The data sources: functions from (`config.Data`, seed) to `Source`, by the name in data.source."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from ijepa import config
from ijepa.config.custom import first_line, load_class
from ijepa.data.clevr import clevr
from ijepa.data.decode import MODES
from ijepa.data.folders import folder
from ijepa.data.image_list import image_list
from ijepa.data.imagenet import imagenet
from ijepa.data.listed import inat18, places205
from ijepa.data.medmnist import medmnist
from ijepa.data.published import cifar10, cifar100, imagenette, stl10, stl10_unlabelled
from ijepa.data.rendered import scene_splits
from ijepa.data.scan import first_names
from ijepa.data.sets import CLASS, UNLABELLED, Arrays, Source, split
from ijepa.data.torchvision_sets import dtd, eurosat, flowers102, food101, pets, places365, svhn
from ijepa.data.workers import worker_count
from ijepa.util.errors import ConfigError, UserError


def digits(data: config.Data, seed: int) -> Source:
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, 10 classes."""
    if data.root is not None:
        raise ConfigError("data.root", data.root, "digits need no folder; for your own images add data=folder")
    if data.channels not in MODES:
        raise ConfigError("data.channels", data.channels, "digits are 8-bit pictures; try 1, 3 or 4")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = [Image.fromarray((picture * (255 / 16)).astype(np.uint8)) for picture in bunch.images]
    labels = {CLASS: [int(label) for label in bunch.target]}
    train, val = split(Arrays(images, labels, data.channels), data.val_fraction, seed)
    return Source(train, val, {CLASS: [str(digit) for digit in range(10)]})


def scenes(data: config.Data, seed: int) -> Source:
    """Rendered scenes, labelled by count, and by distance, shape and colour of the nearest object."""
    if data.root is not None:
        raise ConfigError("data.root", data.root, "scenes need no folder; for your own images add data=folder")
    train, val, classes = scene_splits(data)

    def prepare() -> None:
        for part in (train, val):
            part.prepare(worker_count(data.workers, 1))

    return Source(train, val, classes, prepare=prepare)


Build = Callable[[config.Data, int], Source]
SOURCES: dict[str, Build] = {
    "folder": folder,
    "list": image_list,
    "scenes": scenes,
    "digits": digits,
    "imagenet": imagenet,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "stl10": stl10,
    "stl10_unlabelled": stl10_unlabelled,
    "imagenette": imagenette,
    "food101": food101,
    "flowers102": flowers102,
    "pets": pets,
    "dtd": dtd,
    "eurosat": eurosat,
    "svhn": svhn,
    "medmnist": medmnist,
    "places365": places365,
    "places205": places205,
    "inat18": inat18,
    "clevr": clevr,
}


def build(data: config.Data, seed: int) -> Source:
    """The source that ``data.source`` names.

    Raises:
        UserError: if there is no such source, or its images are missing.
    """
    for name in ("val", "labels", "depth_root", "segmentation_root"):
        known = data.source in SOURCES and data.source != "folder"
        known = known and not (name == "val" and data.source in ("list", "medmnist"))
        if known and getattr(data, name) is not None:
            raise ConfigError(f"data.{name}", getattr(data, name), "needs data=folder; omit it")
    if data.source in SOURCES:
        source = SOURCES[data.source](data, seed)
    elif "." in data.source:
        source = _custom_source(data, seed)
    else:
        raise ConfigError(
            "data.source", data.source, f"no such source; try {', '.join(SOURCES)}, or package.module.function"
        )
    if not len(source.train):
        raise ConfigError("data.val_fraction", data.val_fraction, "leaves no training images; lower it")
    source.notes.extend(_unknown_classes(source))
    return source


def _unknown_classes(source: Source) -> list[str]:
    """Notes about validation images whose class has no training image."""
    notes = []
    for name, titles in source.classes.items():
        known = set(source.train.labels.get(name, ()))
        unknown = [label for label in source.val.labels.get(name, ()) if label != UNLABELLED and label not in known]
        if unknown and known - {UNLABELLED}:
            classes = first_names(sorted({titles[label] for label in unknown}))
            which = "" if name == CLASS else f"{name}: "
            notes.append(f"{which}{len(unknown)} validation images are of classes without training images, so count as "
                         f"errors: {classes}")  # fmt: skip
    return notes


def _custom_source(data: config.Data, seed: int) -> Source:
    """The source that the user's function ``data.source`` returns."""
    function = load_class("data.source", data.source)
    try:
        source = function(data, seed)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError("data.source", data.source, f"fails: {first_line(error)}") from error
    if not isinstance(source, Source):
        raise ConfigError("data.source", data.source, "does not return an ijepa.data.sets.Source")
    return source
