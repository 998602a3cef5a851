"""task=retrieval: the nearest training images of validation images: a picture, and how many have the same class."""

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


class RetrievalTask(ConfiguredTask[Retrieval]):
    """Precision of the nearest neighbours, and a picture of them."""

    name = "retrieval"
    needs_labels = False

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: the fraction of the nearest training images that have the image's class (precision at k).

        Over the validation images that have a label; a neighbour without one does not count as of the same class.
        """
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        nearest = _nearest(train.values, test.values, self.config.neighbours)
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
        """Draws a row per query image, evenly spaced among the validation images, with its nearest training images."""
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        queries = torch.tensor(evenly_spaced(len(test.values), self.config.queries))
        nearest = _nearest(train.values, test.values[queries], self.config.neighbours)
        rows = [
            torch.stack([_image(ctx, "val", test, int(query)), *(_image(ctx, "train", train, i) for i in row.tolist())])
            for query, row in zip(queries, nearest, strict=True)
        ]
        path = folder / f"retrieval-{model.name.replace(' ', '-')}.png"
        pictures.write(pictures.neighbours(torch.stack(rows)), path)
        return [path]


def _nearest(train: Tensor, values: Tensor, count: int) -> Tensor:
    """The rows of ``train`` nearest to each row of ``values``: [n, count]."""
    return torch.cat([nearest for _, nearest in neighbours(train, values, count, center=True)])


def _image(ctx: EvalContext, split: str, features: Features, row: int) -> Tensor:
    images = ctx.data.source.train if split == "train" else ctx.data.source.val
    return ctx.data.eval_transform(images.read(int(features.indices[row])))
