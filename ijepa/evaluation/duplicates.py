"""task=duplicates: near-duplicates among all images, above all between training and validation images."""

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa import pictures
from ijepa.config import Duplicates
from ijepa.data.sets import Images
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.files import replacing

TABLE = "duplicates.csv"
CHUNK = 2**24
"""Similarities in memory at once."""
TRAIN, VAL = "train", "val"


class Pairs(NamedTuple):
    """Pairs of rows with similar features, the most similar first: cosines [p], rows [p, 2]."""

    cosines: Tensor
    rows: Tensor


class DuplicatesTask(ConfiguredTask[Duplicates]):
    """A table and a picture of near-duplicates."""

    name = "duplicates"
    needs_labels = False
    pairs: Pairs | None = None

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """No results; the details are the numbers of pairs and of validation images with a duplicate in training."""
        if model.baseline:
            return {}
        train, val = ctx.features(model, ctx.layers, self.config.batch_size)
        self.pairs = similar_pairs(torch.cat([train.values, val.values]), self.config.threshold, self.config.max_pairs)
        in_val = self.pairs.rows >= len(train.values)
        across = in_val[:, 0] != in_val[:, 1]
        leaked = self.pairs.rows[across].max(dim=1).values.unique()  # validation images come after training images
        details = {
            "pairs": len(in_val), "pairs_across": int(across.sum()), "val_in_train": len(leaked),
            "images": {TRAIN: len(train.values), VAL: len(val.values)},
        }  # fmt: skip
        return {"": TaskResult({}, details)}

    def metrics(self, several: bool) -> list[MetricSpec]:
        """No metrics."""
        return []

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Writes the table, a row per pair, and draws the most similar pairs; not for baselines."""
        if model.baseline or self.pairs is None:
            return []
        train, val = ctx.features(model, ctx.layers, self.config.batch_size)
        source, first = ctx.data.source, len(train.values)

        def image(row: int) -> tuple[str, Images, int]:
            if row < first:
                return TRAIN, source.train, int(train.indices[row])
            return VAL, source.val, int(val.indices[row - first])

        found = [
            (cosine, image(one), image(other))
            for cosine, (one, other) in zip(self.pairs.cosines.tolist(), self.pairs.rows.tolist(), strict=True)
        ]
        with (
            replacing(folder / TABLE) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["file", "part", "other", "other_part", "cosine"])
            for cosine, one, other in found:
                names = [images.name(index) for _, images, index in (one, other)]
                writer.writerow([names[0], one[0], names[1], other[0], f"{cosine:.6f}"])
        limit = f", the first {self.config.max_pairs}" if len(found) == self.config.max_pairs else ""
        print(f"{len(found)} pairs of images have a cosine similarity of {self.config.threshold:g} or more{limit}")
        if not found:
            return [folder / TABLE]
        shown = found[: self.config.shown]
        shots = [[images.read(index) for _, images, index in pair] for _, *pair in shown]
        rows = torch.stack([torch.stack([ctx.data.eval_transform(shot) for shot in row]) for row in shots])
        files = [[images.name(index) for _, images, index in pair] for _, *pair in shown]
        path = folder / "duplicates.png"
        pictures.write(pictures.pairs(rows, files, [cosine for cosine, *_ in shown]), path)
        return [folder / TABLE, path]


def similar_pairs(features: Tensor, threshold: float, most: int) -> Pairs:
    """The pairs of rows of ``features`` [n, D] whose cosine similarity, less the mean, is at least ``threshold``.

    Exact, in chunks: time grows with n squared, memory does not.
    """
    keys = F.normalize(features - features.mean(dim=0), dim=1)
    found = Pairs(torch.empty(0), torch.empty(0, 2, dtype=torch.int64))
    size = max(CHUNK // max(len(keys), 1), 1)
    for start in range(0, len(keys), size):
        similarity = keys[start : start + size] @ keys[start:].T
        rows, columns = (similarity >= threshold).nonzero(as_tuple=True)
        later = columns > rows  # each pair once, and no image with itself
        rows, columns = rows[later], columns[later]
        cosines = torch.cat([found.cosines, similarity[rows, columns]])
        pairs = torch.cat([found.rows, torch.stack([rows, columns], dim=1) + start])
        order = cosines.argsort(descending=True, stable=True)[:most]
        found = Pairs(cosines[order].clamp(max=1), pairs[order])
    return found
