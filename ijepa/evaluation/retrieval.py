"""task=retrieval: the nearest training images of validation images, as a picture, and how many share their class."""

from pathlib import Path

import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Retrieval
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import spread
from ijepa.evaluation.context import Bench, Found, Subject, label_sets
from ijepa.evaluation.features import Features
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.measures import Measured
from ijepa.util.errors import UnavailableError


def refuse(task: Retrieval, data: DataModule) -> None:
    """Refuses a folder without validation images."""
    if not len(data.source.val):
        raise UnavailableError("data.val_fraction", 0, "leaves no image to find neighbours for")


def evaluate(task: Retrieval, subject: Subject, bench: Bench) -> dict[str, Found]:
    """By label set: the share of the ``task.neighbours`` nearest training images that have the image's class."""
    train, test = bench.features(subject, bench.layers, task.batch_size)
    nearest = _nearest(train.values, test.values, task.neighbours)
    found = {}
    for name in label_sets(bench.data):
        right = (train.labels[name][nearest] == test.labels[name][:, None]).double().mean(dim=1)
        each = torch.stack([right, torch.ones_like(right)], dim=1)
        found[name] = Found({metrics(task, True)[0]: Measured(right.mean().item(), each)})
    return found


def metrics(task: Retrieval, several: bool) -> list[str]:
    """One."""
    return [f"retrieval{task.neighbours}"]


def write(task: Retrieval, subject: Subject, bench: Bench, folder: Path) -> list[Path]:
    """The picture: a row per query, evenly spread over the validation images, and its nearest training images."""
    train, test = bench.features(subject, bench.layers, task.batch_size)
    shown = spread(len(test.values), task.queries)
    chosen = torch.tensor(shown)
    nearest = _nearest(train.values, test.values[chosen], task.neighbours)
    rows = [
        torch.stack([_image(bench, "val", test, int(query)), *(_image(bench, "train", train, i) for i in row.tolist())])
        for query, row in zip(chosen, nearest, strict=True)
    ]
    path = folder / f"retrieval-{subject.name.replace(' ', '-')}.png"
    pictures.write(pictures.neighbours(torch.stack(rows)), path)
    return [path]


def _nearest(train: Tensor, values: Tensor, count: int) -> Tensor:
    """The rows of ``train`` that are nearest to each of ``values``: [n, count]."""
    return torch.cat([nearest for _, nearest in neighbours(train, values, count, center=True)])


def _image(bench: Bench, part: str, features: Features, row: int) -> Tensor:
    images = bench.data.source.train if part == "train" else bench.data.source.val
    return bench.data.eval_transform(images.read(int(features.indices[row])))
