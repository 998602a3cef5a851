"""task=retrieval: the nearest training images of validation images, as a picture, and how many share their class."""

from pathlib import Path

import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Retrieval
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import evenly_spaced
from ijepa.evaluation import specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.measures import Measured
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import UnavailableError


class RetrievalTask(ConfiguredTask[Retrieval]):
    """Nearest neighbours, and how many share the class."""

    name = "retrieval"
    needs_labels = False

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: the share of the ``task.neighbours`` nearest training images that have the image's class."""
        train, test = ctx.features(evaluated, ctx.layers, self.config.batch_size)
        nearest = _nearest(train.values, test.values, self.config.neighbours)
        found = {}
        for name in label_sets(ctx.data):
            right = (train.labels[name][nearest] == test.labels[name][:, None]).double().mean(dim=1)
            each = torch.stack([right, torch.ones_like(right)], dim=1)
            found[name] = TaskResult({self.metrics(True)[0].name: Measured(right.mean().item(), each)})
        return found

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One."""
        return [specs.RETRIEVAL.named(neighbours=self.config.neighbours)]

    def validate(self, data: DataModule) -> None:
        """Refuses a folder without validation images."""
        if not len(data.source.val):
            raise UnavailableError("data.val_fraction", 0, "leaves no validation images to find neighbours for")

    def write(self, evaluated: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """The picture: a row per query, evenly spread over the validation images, and its nearest training images."""
        train, test = ctx.features(evaluated, ctx.layers, self.config.batch_size)
        shown = evenly_spaced(len(test.values), self.config.queries)
        chosen = torch.tensor(shown)
        nearest = _nearest(train.values, test.values[chosen], self.config.neighbours)
        rows = [
            torch.stack([_image(ctx, "val", test, int(query)), *(_image(ctx, "train", train, i) for i in row.tolist())])
            for query, row in zip(chosen, nearest, strict=True)
        ]
        path = folder / f"retrieval-{evaluated.name.replace(' ', '-')}.png"
        pictures.write(pictures.neighbours(torch.stack(rows)), path)
        return [path]


def _nearest(train: Tensor, values: Tensor, count: int) -> Tensor:
    """The rows of ``train`` that are nearest to each of ``values``: [n, count]."""
    return torch.cat([nearest for _, nearest in neighbours(train, values, count, center=True)])


def _image(ctx: EvalContext, part: str, features: Features, row: int) -> Tensor:
    images = ctx.data.source.train if part == "train" else ctx.data.source.val
    return ctx.data.eval_transform(images.read(int(features.indices[row])))
