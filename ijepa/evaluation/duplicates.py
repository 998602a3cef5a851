"""task=duplicates: near-duplicates among all images, above all between training and validation images."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa import pictures
from ijepa.config import Duplicates
from ijepa.data.sets import Images
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.task import FileTask
from ijepa.util.files import write_csv

TABLE = "duplicates.csv"
CHUNK = 2**24
"""Similarities in memory at once."""
ROUNDING = 1e-6
"""Of cosine similarities: those of identical images can be below 1."""
TRAIN, VAL = "train", "val"


class Pairs(NamedTuple):
    """Pairs of rows with similar features, the most similar first: cosines [p], rows [p, 2].

    total: how many pairs there are in all; across: of a row below ``first`` and one from it on.
    leaked: rows from ``first`` on that are in such a pair: [n - first] bool.
    """

    cosines: Tensor
    rows: Tensor
    total: int
    across: int
    leaked: Tensor


class DuplicatesTask(FileTask[Duplicates]):
    """A table and a picture of near-duplicates."""

    name = "duplicates"
    pairs: Pairs | None = None

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """No results; the details are the numbers of pairs and of validation images with a duplicate in training."""
        if model.baseline:
            return {}
        train, val = ctx.features(model, ctx.layers, self.config.batch_size)
        values = torch.cat([part.values for part in (train, val) if len(part.values)])
        self.pairs = similar_pairs(values, self.config.threshold, self.config.max_pairs, len(train.values))
        details = {
            "pairs": self.pairs.total, "pairs_across": self.pairs.across, "val_in_train": int(self.pairs.leaked.sum()),
            "listed": len(self.pairs.rows), "images": {TRAIN: len(train.values), VAL: len(val.values)},
        }  # fmt: skip
        return {"": TaskResult({}, details)}

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
        lines = [["file", "part", "other", "other_part", "cosine"]]
        for cosine, one, other in found:
            names = [images.name(index) for _, images, index in (one, other)]
            lines.append([names[0], one[0], names[1], other[0], f"{cosine:.6f}"])
        write_csv(folder / TABLE, lines)
        listed = "" if len(found) == self.pairs.total else f"; the table has the first {len(found)}"
        print(
            f"{self.pairs.total} pairs of images have a cosine similarity of {self.config.threshold:g} or more{listed}"
        )
        if len(val.values):
            leaked = int(self.pairs.leaked.sum())
            print(f"{leaked} of {len(val.values)} validation images have a near-duplicate among the training images")
        if not found:
            return [folder / TABLE]
        shown = found[: self.config.shown]
        shots = [[images.read(index) for _, images, index in pair] for _, *pair in shown]
        rows = torch.stack([torch.stack([ctx.data.eval_transform(shot) for shot in row]) for row in shots])
        files = [[images.name(index) for _, images, index in pair] for _, *pair in shown]
        path = folder / "duplicates.png"
        pictures.write(pictures.pairs(rows, files, [cosine for cosine, *_ in shown]), path)
        return [folder / TABLE, path]


def similar_pairs(features: Tensor, threshold: float, most: int, first: int) -> Pairs:
    """The pairs of rows of ``features`` [n, D] whose cosine similarity, less the mean, is at least ``threshold``.

    Exact, in chunks: time grows with n squared, memory does not. Only the ``most`` similar pairs are kept; all count.
    """
    centre = features.mean(dim=0) if len(features) > 2 else torch.zeros(())  # two images would be opposite
    keys = F.normalize(features - centre, dim=1)
    cosines, pairs = torch.empty(0), torch.empty(0, 2, dtype=torch.int64)
    count, across, leaked = 0, 0, torch.zeros(max(len(keys) - first, 0), dtype=torch.bool)
    size = max(CHUNK // max(len(keys), 1), 1)
    for start in range(0, len(keys), size):
        similarity = keys[start : start + size] @ keys[start:].T
        rows, columns = (similarity >= threshold - ROUNDING).nonzero(as_tuple=True)
        later = columns > rows  # each pair once, and no image with itself
        rows, columns = rows[later], columns[later]
        found = torch.stack([rows, columns], dim=1) + start
        between = (found[:, 0] < first) & (found[:, 1] >= first)
        count, across = count + len(found), across + int(between.sum())
        leaked[found[between, 1] - first] = True
        cosines = torch.cat([cosines, similarity[rows, columns].clamp(max=1)])
        pairs = torch.cat([pairs, found])
        order = cosines.argsort(descending=True, stable=True)[:most]
        cosines, pairs = cosines[order], pairs[order]
    return Pairs(cosines, pairs, count, across, leaked)
