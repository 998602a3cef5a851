"""task=features: exports the embeddings of all images with their names."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ijepa.config import Export
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Images
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import ConfigError
from ijepa.util.files import replacing


class ExportTask(ConfiguredTask[Export]):
    """The features, to a file."""

    name = "features"
    needs_labels = False

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """No result; the features are found here, where all devices take part, and written afterwards."""
        if not evaluated.baseline:
            ctx.features(evaluated, ctx.layers, self.config.batch_size)
        return {}

    def validate(self, data: DataModule) -> None:
        """Refuses Parquet where it cannot be written; before features are computed."""
        if self.config.format == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise ConfigError(f"{self.key}.format", "parquet", "needs pyarrow; pip install pyarrow, or try npz")

    def metrics(self, several: bool) -> list[MetricSpec]:
        """None."""
        return []

    def write(self, evaluated: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Writes ``features.npz`` or ``features.parquet``, of the encoder alone: a row per readable image.

        Columns: ``name`` (a file's path), ``part`` (train or val), ``features`` [D] float32, and for each label set
        ``label_NAME``, a class index, -1 where a part has none. ``class_NAME`` is the class's name in Parquet; in NPZ,
        all names in the order of their indices.
        """
        if evaluated.baseline:
            return []
        source = ctx.data.source
        parts = {"train": source.train, "val": source.val}
        found = zip(parts.items(), ctx.features(evaluated, ctx.layers, self.config.batch_size), strict=True)
        names: list[str] = []
        columns: dict[str, list[Any]] = {f"label_{name}": [] for name in source.classes}
        values, where = [], []
        for (part, images), features in found:
            kept = features.indices.tolist()
            names += [images.name(index) for index in kept]
            where += [part] * len(kept)
            for name in source.classes:
                columns[f"label_{name}"] += _labels(images, name, kept)
            if len(kept):
                values.append(features.values)
        table = {"name": np.array(names), "part": np.array(where), "features": torch.cat(values).numpy()}
        table |= {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
        path = folder / f"features.{self.config.format}"
        with replacing(path) as temporary:
            if self.config.format == "npz":
                classes = {f"class_{name}": np.array(theirs) for name, theirs in source.classes.items()}
                with temporary.open("wb") as file:  # given a path, numpy would add a suffix
                    np.savez(file, **table, **classes)  # type: ignore[arg-type]
            else:
                _parquet(temporary, table, source.classes)
        return [path]


def _labels(images: Images, name: str, kept: list[int]) -> list[int]:
    theirs = images.labels.get(name)
    return [-1 if theirs is None else theirs[index] for index in kept]


def _parquet(path: Path, table: dict[str, Any], classes: dict[str, list[str]]) -> None:
    import pyarrow
    from pyarrow import parquet

    width = table["features"].shape[1]
    columns = {name: pyarrow.array(column) for name, column in table.items() if name != "features"}
    flat = pyarrow.array(table["features"].ravel())
    columns["features"] = pyarrow.FixedSizeListArray.from_arrays(flat, width)
    for name, theirs in classes.items():
        labels = table[f"label_{name}"].tolist()
        columns[f"class_{name}"] = pyarrow.array([None if label < 0 else theirs[label] for label in labels])
    parquet.write_table(pyarrow.table(columns), path)
