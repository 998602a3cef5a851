"""MedMNIST: small medical images in one file of NumPy arrays (2010.14925, 2110.14795)."""

import zlib
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ijepa import config
from ijepa.data.folders import check_picture_channels, root_path
from ijepa.data.sets import CLASS, Labels, Source, Uint8Images
from ijepa.util.errors import ConfigError

PARTS = ("train", "val", "test")


def medmnist(data: config.Data, seed: int) -> Source:
    """``data.root``: a file such as pathmnist.npz; its images for training, and for validation (``data.val=test``: the
    test images). Several columns of labels are several label sets, label0, label1, ...

    Raises:
        ConfigError: if the file is missing, or differs from MedMNIST's.
    """
    path, chosen = root_path(data), data.val or "val"
    check_picture_channels(data)
    if chosen not in PARTS[1:]:
        raise ConfigError("data.val", data.val, "try val or test")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for part in ("train", chosen) for name in (f"{part}_images", f"{part}_labels")}
    except FileNotFoundError:
        problem = "no such file; download one of MedMNIST's, such as pathmnist.npz, from zenodo.org/records/10519652"
        raise ConfigError("data.root", data.root, problem) from None
    except (OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, NotImplementedError, BadZipFile,
            zlib.error) as error:  # fmt: skip
        raise ConfigError("data.root", data.root, f"is not one of MedMNIST's files ({error})") from None
    images = [_images(arrays[f"{part}_images"], data) for part in ("train", chosen)]
    columns = [_labels(arrays[f"{part}_labels"], len(found), data)
               for part, found in zip(("train", chosen), images, strict=True)]  # fmt: skip
    if len({len(found) for found in columns}) > 1:
        raise ConfigError("data.root", data.root, "has other labels for training than for validation")
    names = [CLASS] if len(columns[0]) == 1 else [f"label{number}" for number in range(len(columns[0]))]
    titles = {name: [str(value) for value in range(1 + max(max(found[at]) for found in columns))]
              for at, name in enumerate(names)}  # fmt: skip
    parts = []
    for part, found, values in zip(("train", chosen), images, columns, strict=True):
        labels: Labels = dict(zip(names, values, strict=True))
        parts.append(Uint8Images(found, labels, data.channels, f"{path.stem} {part}"))
    return Source(parts[0], parts[1], titles)


def _images(array: NDArray[Any], data: config.Data) -> NDArray[np.uint8]:
    """[n, H, W] or [n, H, W, 3]."""
    if array.dtype != np.uint8 or (array.ndim != 3 and (array.ndim != 4 or array.shape[3] != 3)) or not len(array):
        problem = f"holds images of shape {list(array.shape)}, not [n, H, W] or [n, H, W, 3]"
        raise ConfigError("data.root", data.root, problem)
    return array


def _labels(array: NDArray[Any], count: int, data: config.Data) -> list[list[int]]:
    """A list for each column."""
    if array.ndim != 2 or len(array) != count or not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
        raise ConfigError("data.root", data.root, f"holds labels of shape {list(array.shape)} for {count} images")
    return [column.tolist() for column in array.T]
