"""Depth and segmentation maps in a folder that mirrors the image folder: MAPS/a/x.png for IMAGES/a/x.jpg.

Or MAPS/a/x.jpg.png, where another image is called x, too.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tifffile import TiffFile
from torch import Tensor

from ijepa import config
from ijepa.data import tiff, workers
from ijepa.data.limits import check_size, open_picture
from ijepa.data.sets import UnreadableError
from ijepa.util.errors import ConfigError
from ijepa.util.reading import check_regular

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
IGNORE_INDEX = 255
"""The ignore index in files, as in Cityscapes, ADE20K and PASCAL VOC; it becomes -1."""


@dataclass(frozen=True)
class MapFolder:
    """The maps of the images below ``images``.

    Attributes:
        kind: depth or segmentation.
        folder: the folder of maps.
        images: the folder of images, data.root.
        scale: factor for integer depth maps.
        max_pixels: maps with more pixels are unreadable; None: no limit.
    """

    kind: str
    folder: Path
    images: Path
    scale: float
    max_pixels: int | None

    def __call__(self, image: str) -> Tensor:
        """The map [H, W] of the image at path ``image``; see `ijepa.data.sets.HasDenseMaps`.

        Raises:
            UnreadableError: if the map is missing or cannot be read.
        """
        path = self.find(image)
        if path is None:
            names = f"{self.stem(image)}{SUFFIXES[0]} or {' '.join(SUFFIXES[1:])}"
            raise UnreadableError(f"{image} (has no {self.kind} map {names})")
        try:
            with workers.reading(path):
                values = _read_values(path, self.max_pixels)
            return _to_classes(values) if self.kind == "segmentation" else _to_depth(values, self.scale)
        except Exception as error:  # damaged files make decoders raise anything
            raise UnreadableError(f"{path} ({error})") from None

    def find(self, image: str) -> str | None:
        """The path of the image's map; None if it has none."""
        stems = self.stem(image) + Path(image).suffix, self.stem(image)
        return next((path for stem in stems for path in _candidates(stem) if os.path.isfile(path)), None)  # noqa: PTH113

    def stem(self, image: str) -> str:
        """The path of the image's map without its suffix."""
        return str(self.folder / Path(image).relative_to(self.images).with_suffix(""))


def map_folders(data: config.Data) -> dict[str, MapFolder]:
    """The configured map folders of data=folder, by kind.

    Raises:
        ConfigError: if a map folder does not exist, or is inside the image folder.
    """
    folders = {}
    for kind, folder in (("depth", data.depth_root), ("segmentation", data.segmentation_root)):
        if folder is None:
            continue
        key, path, images = f"data.{kind}_root", Path(folder), Path(str(data.root)).expanduser()
        if not path.is_dir():
            raise ConfigError(key, folder, "no such folder" if not path.exists() else "not a folder")
        if path.resolve().is_relative_to(images.resolve()):
            raise ConfigError(
                key, folder, f"is inside data.root={images}, where maps would be read as images; move it elsewhere"
            )
        folders[kind] = MapFolder(kind, path, images, data.depth_scale or 1.0, data.max_pixels)
    return folders


def check_any_map(map_folders: dict[str, MapFolder], images: list[str]) -> None:
    """Raises ConfigError if a map folder has no map for any of ``images``."""
    for kind, map_folder in map_folders.items():
        if images and not any(map_folder.find(image) for image in images):
            expected = f"{map_folder.stem(images[0])}{SUFFIXES[0]} ({' '.join(SUFFIXES[1:])})"
            problem = f"has no map for any of {len(images)} images; the first image's map should be {expected}"
            raise ConfigError(f"data.{kind}_root", map_folder.folder, problem)


def _candidates(stem: str) -> Iterator[str]:
    for suffix in SUFFIXES:
        yield stem + suffix
        yield stem + suffix.upper()


def _read_values(path: str, max_pixels: int | None) -> "np.ndarray[Any, Any]":
    """The stored values [H, W]; the file's content determines the format, not its name."""
    check_regular(path)
    with open(path, "rb") as file:  # noqa: PTH123  # faster than Path, for millions of files
        start = file.read(6)
    if start == b"\x93NUMPY":
        values = np.load(
            path, mmap_mode="r", allow_pickle=False
        )  # memory-mapped: the size is checked before values are read
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
            values = values[0] if values.shape[0] == 1 else values[..., 0]
    elif start.startswith(tiff.MAGIC):
        values = _read_tiff(path, max_pixels)
    else:
        values = _read_with_pillow(path, max_pixels)
    if values.ndim != 2:
        raise ValueError(f"shape {list(values.shape)}: a map has one value per pixel, [H, W]")
    check_size(values.shape[0], values.shape[1], max_pixels)
    return values


def _read_tiff(path: str, max_pixels: int | None) -> "np.ndarray[Any, Any]":
    with open(path, "rb") as file, TiffFile(file) as opened:  # noqa: PTH123
        page: Any = opened.pages.first
        check_size(page.imagelength, page.imagewidth, max_pixels, tiff.pixel_bytes(page, 1))
        tiff.check_stored_bytes(page)
        if page.compression not in tiff.COMPRESSIONS and page.samplesperpixel == 1 and page.bitspersample <= 8:
            return _read_with_pillow(path, max_pixels)  # such as fax compressions of black and white
        tiff.check_compression(page)
        values: np.ndarray[Any, Any] = page.asarray(maxworkers=1)
    return values


def _read_with_pillow(path: str, max_pixels: int | None) -> "np.ndarray[Any, Any]":
    with open_picture(path) as image:
        check_size(image.height, image.width, max_pixels)
        return np.asarray(image)  # palette images: the indices


def _to_depth(values: "np.ndarray[Any, Any]", scale: float) -> Tensor:
    if values.dtype.kind not in "uif":
        raise ValueError(f"contains {values.dtype} instead of real numbers")
    depth = torch.from_numpy(np.array(values, dtype=np.float32))
    return depth if values.dtype.kind == "f" else depth * scale


def _to_classes(values: "np.ndarray[Any, Any]") -> Tensor:
    if values.dtype.kind not in "bui":
        raise ValueError(f"contains {values.dtype} instead of class indices")
    classes = torch.from_numpy(np.array(values, dtype=np.int64))
    return torch.where((classes < 0) | (classes == IGNORE_INDEX), -1, classes)
