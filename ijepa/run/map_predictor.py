"""Predicts depth or class of every pixel of images: a map of each, in a folder that mirrors theirs."""

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ijepa.config import PredictConfig
from ijepa.data.files import Files
from ijepa.data.heldout import evenly_spaced
from ijepa.data.images import EvalTransform
from ijepa.data.sets import UnreadableError
from ijepa.evaluation.runtime import Runtime
from ijepa.interop.dense import WholeImage, load_dense, whole_image
from ijepa.pictures import results, write
from ijepa.run.image_predictor import ImagePredictor, relative_name
from ijepa.run_folder.outputs import MAPS, MAPS_COLUMNS, output_kind
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import replacing
from ijepa.util.reading import check_regular
from ijepa.util.rows import Row, RowFile

PICTURE = "maps.png"
"""A picture of some maps, beside the table."""
EXAMPLES = 8
"""Images in the picture."""
PALETTE = 256
"""Classes that fit into a palette."""


class WholeImages(Dataset[WholeImage | None]):
    """Images for a dense predictor; None for one that is unreadable or too long."""

    def __init__(self, images: Files, transform: EvalTransform) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> WholeImage | None:
        try:
            return whole_image(self.images.read(index), self.transform)
        except (UnreadableError, ValueError):
            return None


class Packed(NamedTuple):
    """A batch of images of different sizes in one tensor: a worker needs a file handle for each tensor that it sends.

    pixels: all pixels, one image after the other.
    shapes: C, H', W', H and W of each image; zeros for one that is missing.
    """

    pixels: Tensor
    shapes: list[tuple[int, int, int, int, int]]

    def images(self) -> list[WholeImage | None]:
        """The images."""
        parts = self.pixels.split([c * h * w for c, h, w, _, _ in self.shapes])
        return [
            WholeImage(part.view(c, h, w), (height, width)) if c else None
            for part, (c, h, w, height, width) in zip(parts, self.shapes, strict=True)
        ]


class MapPredictor(ImagePredictor):
    """A map of each image: depth as a TIFF of floats, classes as a PNG with a palette whose indices they are."""

    def __init__(self, config: PredictConfig, file: Path) -> None:
        super().__init__(file)
        if config.labels is not None or config.probabilities:
            key, value = ("labels", config.labels) if config.labels else ("probabilities", config.probabilities)
            raise ConfigError(key, value, f"{file.name} predicts maps, not classes of images; omit it")
        self.predictor = load_dense(file)
        description = self.predictor.description
        self.encoder, self.layers, self.max_pixels = self.predictor.encoder, description.layers, description.max_pixels
        self.value_limit = self.predictor.value_limit
        self.kind = description.kind
        self.batch_size = config.data.batch_size
        self.root = Path(config.data.root).expanduser()
        self.default_output = f"{self.kind}_maps"
        self.columns = {"map": False}
        self.described = "maps of depth"
        if self.kind == "segmentation":
            self.described = f"maps of {self.predictor.head.out_features} classes"

    def table(self, output: Path) -> Path:
        if output.suffix in (".csv", ".parquet") or output.is_file():
            raise ConfigError("output", output, f"maps are written to a folder; try {self.default_output}")
        own, images = output.resolve(), self.root.resolve()
        if self.root.is_dir() and own.is_relative_to(images):
            raise ConfigError("output", output, f"is inside data.root={self.root}, where maps would be read as images")
        if images.is_relative_to(own):
            raise ConfigError("output", output, f"holds data.root={self.root}; give a folder of its own")
        if output.is_dir() and any(output.iterdir()) and not is_map_folder(output):
            raise ConfigError("output", output, "holds other files, which maps could replace; give a new folder")
        self.folder = output
        return output / MAPS

    def stale_files(self) -> list[Path]:
        """The maps that tables in the folder list, and the picture."""
        maps = [
            path for table in (self.folder / MAPS, RowFile.unfinished_of(self.folder / MAPS)) for path in _maps(table)
        ]
        folder = self.folder.resolve()
        files = [self.folder / PICTURE, *(self.folder / path for path in maps)]
        return [file for file in files if file.is_file() and file.resolve().is_relative_to(folder)]

    def reason(self, images: Files, index: int) -> str:
        try:
            whole_image(images.read(index), self.predictor.transform)
        except ValueError as error:
            return f"{images.name(index)} ({error})"
        except UnreadableError as error:
            return str(error)
        return images.name(index)  # it has become readable meanwhile

    def pictures(self, images: Files) -> list[Path]:
        """Images and their maps, evenly spaced, as they were cropped in training."""
        shown: list[tuple[Tensor, Tensor]] = []
        transform = self.predictor.transform
        for index in evenly_spaced(len(images), EXAMPLES):
            with contextlib.suppress(UnreadableError, OSError, ValueError):
                values = read_map(self.folder / self.names[index])
                shown.append((transform(images.read(index)), transform.transform_map(values)))
        if not shown:
            return []
        pixels, maps = (torch.stack(parts) for parts in zip(*shown, strict=True))
        draw = results.depths if self.kind == "depth" else results.classes
        write(draw(pixels, None, maps), self.folder / PICTURE)
        return [self.folder / PICTURE]

    def dataset(self, images: Files) -> Dataset[Any]:
        return WholeImages(images, self.predictor.transform)

    @staticmethod
    def collate(items: list[WholeImage | None]) -> Packed:
        pixels = [torch.empty(0) if item is None else item.pixels.flatten() for item in items]
        shapes = [(0, 0, 0, 0, 0) if item is None else (*item.pixels.shape, *item.size) for item in items]
        return Packed(torch.cat(pixels), shapes)  # type: ignore[arg-type]  # five numbers

    def prepare(self, runtime: Runtime, images: Files, root: Path) -> None:
        self.embed = runtime.patches(self.encoder, self.layers)
        self.predictor.to(runtime.device)
        suffix = ".tif" if self.kind == "depth" else ".png"
        self.names = map_names([relative_name(images, index, root) for index in range(len(images))], suffix)

    def predict(self, batch: Packed, indices: list[int]) -> tuple[Tensor, Tensor]:
        images = batch.images()
        readable = torch.tensor([image is not None for image in images], dtype=torch.bool)
        known = [(index, image) for index, image in zip(indices, images, strict=True) if image is not None]
        try:
            maps = self.predictor.maps([image for _, image in known], self.embed, self.batch_size)
            for (index, _), values in zip(known, maps, strict=True):
                write_map(self.folder / self.names[index], values, self.predictor.head.out_features)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from None
        return readable, torch.empty(len(known), 0)

    def rows(self, values: Tensor, indices: list[int]) -> Iterable[Row]:
        return [[self.names[index]] for index in indices]


def map_names(files: list[str], suffix: str) -> list[str]:
    """The maps' names: those of the images with another suffix; where that is taken, with a further one.

    ``x.jpg`` has the map ``x.tif``; beside an image ``x.png`` it is ``x.jpg.tif``.
    """
    short = [os.path.splitext(file)[0] + suffix for file in files]  # noqa: PTH122  # faster than Path, for millions of files
    longer = [False] * len(files)
    reserved = {MAPS, PICTURE}
    while True:
        names = [file + suffix if is_long else name for file, name, is_long in zip(files, short, longer, strict=True)]
        count = Counter(names)
        taken = reserved | {folder for name in names for folder in _folders(name)}
        clashes = [
            index for index, name in enumerate(names) if (count[name] > 1 or name in taken) and not longer[index]
        ]
        if not clashes:
            return names
        for index in clashes:
            longer[index] = True


def is_map_folder(folder: Path) -> bool:
    """Whether predict.py has written maps to a folder, or begun to."""
    if output_kind(folder, [path.name for path in folder.iterdir()]) == "predicted maps":
        return True
    return bool(_maps(RowFile.unfinished_of(folder / MAPS)))


def _maps(table: Path) -> list[str]:
    """The maps that a table lists; [] if it is not one of maps."""
    try:
        check_regular(table)
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            is_own = tuple(rows.fieldnames or ()) == MAPS_COLUMNS
            return [row["map"] for row in rows if row.get("map")] if is_own else []
    except (OSError, csv.Error):
        return []


def _folders(name: str) -> list[str]:
    """The folders that contain a file, innermost first."""
    folders = []
    while name := name.rpartition("/")[0]:
        folders.append(name)
    return folders


def write_map(path: Path, values: Tensor, classes: int) -> None:
    """Writes a map [H, W] atomically, as data.depth_root and data.segmentation_root read it.

    Args:
        path: of the file.
        values: float32 depths, or int64 classes.
        classes: how many there are; up to 256 are the indices of a palette, more are 16-bit grey values.
    """
    with replacing(path, durable=False) as temporary:
        if values.is_floating_point():
            tifffile.imwrite(temporary, values.numpy())
            return
        if classes > PALETTE:
            Image.fromarray(values.numpy().astype(np.uint16)).save(temporary, format="png")
            return
        image = Image.fromarray(values.numpy().astype(np.uint8))
        image.putpalette((results.class_colours(classes) * 255).round().astype(np.uint8).tobytes())
        image.save(temporary, format="png")


def read_map(path: Path) -> Tensor:
    """The values [H, W] that `write_map` has written."""
    if path.suffix == ".tif":
        return torch.from_numpy(tifffile.imread(path))
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image, dtype=np.int64))
