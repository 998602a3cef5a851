"""task=features: exports the features of all images, with their names."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ijepa.config import Export
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Images
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.task import FileTask
from ijepa.util.errors import ConfigError
from ijepa.util.files import replacing


class ExportTask(FileTask[Export]):
    """Writes the features to a file."""

    name = "features"

    def validate(self, data: DataModule) -> None:
        """Raises ConfigError if pyarrow is missing for Parquet, before features are extracted."""
        if self.config.format == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise ConfigError(f"{self.key}.format", "parquet", "needs pyarrow; pip install pyarrow, or try npz")

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Writes ``features.npz`` or ``features.parquet``, not for baselines: a row per readable image.

        Columns: ``name`` (a file's path), ``part`` (train or val), ``features`` [D] float32, and for each label set
        ``label_NAME``, a class index, -1 without labels. ``class_NAME`` is the class's name in Parquet; in NPZ, the
        names of all classes by index.
        """
        if model.baseline:
            return []
        source = ctx.data.source
        splits = {"train": source.train, "val": source.val}
        extracted = zip(splits.items(), ctx.features(model, ctx.layers, self.config.batch_size), strict=True)
        names: list[str] = []
        columns: dict[str, list[Any]] = {f"label_{name}": [] for name in source.classes}
        values, split_column = [], []
        for (split, images), features in extracted:
            indices = features.indices.tolist()
            names += [images.name(index) for index in indices]
            split_column += [split] * len(indices)
            for name in source.classes:
                columns[f"label_{name}"] += _labels(images, name, indices)
            if len(indices):
                values.append(features.values)
        table = {"name": np.array(names), "part": np.array(split_column), "features": torch.cat(values).numpy()}
        table |= {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
        path = folder / f"features.{self.config.format}"
        with replacing(path) as temporary:
            if self.config.format == "npz":
                classes = {f"class_{name}": np.array(class_names) for name, class_names in source.classes.items()}
                with temporary.open("wb") as file:  # given a path, numpy would add a suffix
                    np.savez(file, **table, **classes)  # type: ignore[arg-type]
            else:
                _parquet(temporary, table, source.classes)
        return [path]


def _labels(images: Images, name: str, indices: list[int]) -> list[int]:
    labels = images.labels.get(name)
    return [-1 if labels is None else labels[index] for index in indices]


def _parquet(path: Path, table: dict[str, Any], classes: dict[str, list[str]]) -> None:
    import pyarrow
    from pyarrow import parquet

    width = table["features"].shape[1]
    columns = {name: pyarrow.array(column) for name, column in table.items() if name != "features"}
    flat = pyarrow.array(table["features"].ravel())
    columns["features"] = pyarrow.FixedSizeListArray.from_arrays(flat, width)
    for name, class_names in classes.items():
        labels = table[f"label_{name}"].tolist()
        columns[f"class_{name}"] = pyarrow.array([None if label < 0 else class_names[label] for label in labels])
    parquet.write_table(pyarrow.table(columns), path)
