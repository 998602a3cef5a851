"""task=retrieval: the nearest training images of validation images: a picture, and how many have the same class."""

import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Retrieval
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import evenly_spaced
from ijepa.data.sets import UNLABELLED
from ijepa.evaluation import specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import UnavailableError
from ijepa.util.files import replacing

TABLE = "neighbours.csv"


class RetrievalTask(ConfiguredTask[Retrieval]):
    """Precision of the nearest neighbours, a picture and a table of them."""

    name = "retrieval"
    needs_labels = False

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: the fraction of the nearest training images that have the image's class (precision at k).

        Over the validation images that have a label; a neighbour without one does not count as of the same class.
        """
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        _, nearest = _nearest(train.values, test.values, self.config.neighbours)
        results = {}
        for name in label_sets(ctx.data):
            classes = test.labels[name]
            known = classes != UNLABELLED
            precision = (train.labels[name][nearest[known]] == classes[known, None]).double().mean(dim=1)
            per_image = torch.stack([precision, torch.ones_like(precision)], dim=1)
            results[name] = TaskResult({self.metrics(True)[0].name: MetricValue(precision.mean().item(), per_image)})
        return results

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The precision."""
        return [specs.RETRIEVAL.instance(neighbours=self.config.neighbours)]

    def validate(self, data: DataModule) -> None:
        """Raises UnavailableError without validation images."""
        if not len(data.source.val):
            raise UnavailableError("data.val_fraction", 0, "leaves no validation images to find neighbours for")

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Draws some validation images with their nearest training images; not for baselines, a table of all.

        The table, ``neighbours.csv``, has a row per neighbour: query, rank, file, cosine, and the classes of both.
        """
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        similarity, nearest = _nearest(train.values, test.values, self.config.neighbours)
        rows = [
            torch.stack([_image(ctx, "val", test, query), *(_image(ctx, "train", train, i) for i in row.tolist())])
            for query, row in ((query, nearest[query]) for query in evenly_spaced(len(nearest), self.config.queries))
        ]
        path = folder / f"retrieval-{model.name.replace(' ', '-')}.png"
        pictures.write(pictures.neighbours(torch.stack(rows)), path)
        if model.baseline:
            return [path]
        with (
            replacing(folder / TABLE) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            csv.writer(file).writerows(_table(ctx, train, test, similarity, nearest))
        return [path, folder / TABLE]


def _nearest(train: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The rows of ``train`` nearest to each row of ``values``: cosine similarities, rows; both [n, count]."""
    similarity, rows = zip(*neighbours(train, values, count, center=True), strict=True)
    return torch.cat(similarity), torch.cat(rows)


def _table(
    ctx: EvalContext, train: Features, test: Features, similarity: Tensor, nearest: Tensor
) -> Iterator[list[str]]:
    """The lines of the table of neighbours, the first one with the columns' names."""
    source, names = ctx.data.source, label_sets(ctx.data)

    def classes(features: Features, row: int) -> list[str]:
        labels = [(source.classes.get(name), int(features.labels[name][row])) for name in names]
        return ["" if i == UNLABELLED else titles[i] if titles else str(i) for titles, i in labels]

    named = [f"{image}_{name}" for image in ("query", "file") for name in names]
    yield ["query", "rank", "file", "cosine", *named]
    for query, (cosines, rows) in enumerate(zip(similarity.tolist(), nearest.tolist(), strict=True)):
        image = source.val.name(int(test.indices[query]))
        for rank, (cosine, row) in enumerate(zip(cosines, rows, strict=True), start=1):
            file = source.train.name(int(train.indices[row]))
            yield [image, str(rank), file, f"{cosine:.6f}", *classes(test, query), *classes(train, row)]


def _image(ctx: EvalContext, split: str, features: Features, row: int) -> Tensor:
    images = ctx.data.source.train if split == "train" else ctx.data.source.val
    return ctx.data.eval_transform(images.read(int(features.indices[row])))
