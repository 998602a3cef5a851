"""task=retrieval: the nearest training images of validation images, as a picture, and how many share their class."""

from pathlib import Path

import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Retrieval
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import evenly_spaced
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.measures import Measured
from ijepa.util.errors import UnavailableError


def validate(task: Retrieval, data: DataModule) -> None:
    """Refuses a folder without validation images."""
    if not len(data.source.val):
        raise UnavailableError("data.val_fraction", 0, "leaves no validation images to find neighbours for")


def evaluate(task: Retrieval, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
    """By label set: the share of the ``task.neighbours`` nearest training images that have the image's class."""
    train, test = ctx.features(evaluated, ctx.layers, task.batch_size)
    nearest = _nearest(train.values, test.values, task.neighbours)
    found = {}
    for name in label_sets(ctx.data):
        right = (train.labels[name][nearest] == test.labels[name][:, None]).double().mean(dim=1)
        each = torch.stack([right, torch.ones_like(right)], dim=1)
        found[name] = TaskResult({metrics(task, True)[0]: Measured(right.mean().item(), each)})
    return found


def metrics(task: Retrieval, several: bool) -> list[str]:
    """One."""
    return [f"retrieval{task.neighbours}"]


def write(task: Retrieval, evaluated: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
    """The picture: a row per query, evenly spread over the validation images, and its nearest training images."""
    train, test = ctx.features(evaluated, ctx.layers, task.batch_size)
    shown = evenly_spaced(len(test.values), task.queries)
    chosen = torch.tensor(shown)
    nearest = _nearest(train.values, test.values[chosen], task.neighbours)
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
