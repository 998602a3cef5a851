"""Predicts depth or class of every pixel of images: a map of each, in a folder that mirrors theirs."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ijepa.config import PredictConfig
from ijepa.data.heldout import evenly_spaced
from ijepa.data.images import EvalTransform
from ijepa.data.maps import MapFolder
from ijepa.data.sets import Files, UnreadableError
from ijepa.evaluation.runtime import Runtime
from ijepa.interop.dense import WholeImage, load_dense, whole_image
from ijepa.pictures import results, write
from ijepa.run.predictors import Predictor, relative_name
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import replacing
from ijepa.util.rows import Row, RowFile

MAPS, PICTURE = "maps.csv", "maps.png"
"""Table and picture in a folder of maps."""
EXAMPLES = 8
"""Images in the picture."""
PALETTE = 256
"""Classes that fit into a palette."""


@dataclass
class WholeImages(Dataset["WholeImage | None"]):
    """Images for a dense predictor; None for an unreadable file."""

    images: Files
    transform: EvalTransform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> WholeImage | None:
        try:
            return whole_image(self.images.read(index), self.transform)
        except UnreadableError:
            return None


class MapPredictor(Predictor):
    """A map of each image: depth as a TIFF of floats, classes as a PNG with a palette whose indices they are."""

    default_output = "maps"

    def __init__(self, config: PredictConfig, file: Path) -> None:
        super().__init__(file)
        if config.labels is not None or config.probabilities:
            key, value = ("labels", config.labels) if config.labels else ("probabilities", config.probabilities)
            raise ConfigError(key, value, f"{file.name} predicts maps, not classes of images; omit it")
        self.predictor = load_dense(file)
        description = self.predictor.description
        self.encoder, self.layers, self.max_pixels = self.predictor.encoder, description.layers, description.max_pixels
        self.kind = description.kind
        self.batch_size = config.data.batch_size
        self.root = Path(config.data.root).expanduser()
        self.columns = {"map": False}
        self.described = "maps of depth"
        if self.kind == "segmentation":
            self.described = f"maps of {self.predictor.head.out_features} classes"

    def table(self, output: Path) -> Path:
        table = RowFile.unfinished_of(output / MAPS), output / MAPS
        if output.suffix in (".csv", ".parquet") or output.is_file():
            raise ConfigError("output", output, "maps are written to a folder; give one, such as maps")
        if output.resolve().is_relative_to(self.root.resolve()):
            raise ConfigError("output", output, f"is inside data.root={self.root}, where maps would be read as images")
        if output.is_dir() and any(output.iterdir()) and not any(path.exists() for path in table):
            raise ConfigError("output", output, "holds other files, which maps could replace; give a new folder")
        self.folder = output
        return output / MAPS

    def pictures(self, images: Files, root: Path) -> list[Path]:
        """Images and their maps, evenly spaced, as they were cropped in training."""
        shown: list[tuple[Tensor, Tensor]] = []
        transform, reader = self.predictor.transform, MapFolder(self.kind, self.folder, self.folder, 1, None)
        for index in evenly_spaced(len(images), EXAMPLES):
            with contextlib.suppress(UnreadableError):
                map_file = self.folder / self.names[index]
                shown.append((transform(images.read(index)), transform.transform_map(reader(str(map_file)))))
        if not shown:
            return []
        pixels, maps = (torch.stack(parts) for parts in zip(*shown, strict=True))
        draw = results.depths if self.kind == "depth" else results.classes
        write(draw(pixels, None, maps), self.folder / PICTURE)
        return [self.folder / PICTURE]

    def dataset(self, images: Files) -> Dataset[Any]:
        return WholeImages(images, self.predictor.transform)

    @staticmethod
    def collate(items: list[Any]) -> list[Any]:
        return items

    def prepare(self, runtime: Runtime, images: Files, root: Path) -> None:
        self.embed = runtime.patches(self.encoder, self.layers)
        self.predictor.to(runtime.device)
        self.names = self._map_names([relative_name(images, index, root) for index in range(len(images))])

    def predict(self, batch: Any, indices: list[int]) -> tuple[Tensor, Tensor]:
        readable = torch.tensor([image is not None for image in batch], dtype=torch.bool)
        known = [image for image in batch if image is not None]
        chosen = [index for index, image in zip(indices, batch, strict=True) if image is not None]
        for index, values in zip(chosen, self.predictor.maps(known, self.embed, self.batch_size), strict=True):
            if values.is_floating_point() and not values.isfinite().all():
                raise UserError(f"{self.file}: its depths are not finite; the weights are damaged")
            write_map(self.folder / self.names[index], values, self.predictor.head.out_features)
        return readable, torch.empty(len(known), 0)

    def rows(self, values: Tensor, indices: list[int]) -> Iterable[Row]:
        return [[self.names[index]] for index in indices]

    def _map_names(self, files: list[str]) -> list[str]:
        """The maps' names: those of the images with another suffix; it is added where two would be the same."""
        suffix = ".tif" if self.kind == "depth" else ".png"
        stems = [os.path.splitext(file)[0] for file in files]  # noqa: PTH122  # faster than Path, for millions of files
        seen: dict[str, int] = {}
        for stem in stems:
            seen[stem] = seen.get(stem, 0) + 1
        return [(stem if seen[stem] == 1 else file) + suffix for file, stem in zip(files, stems, strict=True)]


def write_map(path: Path, values: Tensor, classes: int) -> None:
    """Writes a map [H, W] atomically, as data.depth_root and data.segmentation_root read it.

    Args:
        path: of the file.
        values: float32 depths, or int64 classes.
        classes: how many there are; up to 256 are the indices of a palette, more are 16-bit grey values.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if values.is_floating_point():
            tifffile.imwrite(temporary, values.numpy())
            return
        if classes > PALETTE:
            Image.fromarray(values.numpy().astype(np.uint16)).save(temporary, format="png")
            return
        image = Image.fromarray(values.numpy().astype(np.uint8))
        image.putpalette((results.class_colours(classes) * 255).round().astype(np.uint8).tobytes())
        image.save(temporary, format="png")
