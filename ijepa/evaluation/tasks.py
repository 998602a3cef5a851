"""The tasks by name, and what is evaluated beside a checkpoint: random init and raw pixels."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from ijepa.config import Knn, Logistic
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import knn, logistic
from ijepa.evaluation.features import Embed, Features, extract, pixels, pooled
from ijepa.models.pretrained import PretrainedEncoder, Spec

Results = dict[str, float]


class Row(NamedTuple):
    """One line of a results table."""

    name: str
    results: Results


def has_labels(data: DataModule) -> bool:
    """Whether training and validation images are labelled."""
    train, val = data.source.train, data.source.val
    return bool(len(train) and len(val) and train.labels is not None and val.labels is not None)


def evaluate(task: Knn | Logistic, embed: Embed, data: DataModule, device: torch.device, seed: int) -> Results:
    """One task on the features that ``embed`` makes of the data's images; names those that cannot be read, once."""
    parts: list[Features] = []
    for images in (data.source.train, data.source.val):
        loader = data.eval_dataloader(images, task.batch_size)
        readable: list[int] = []
        parts.append(extract(embed, loader, device, readable))
        for index, whole in enumerate(readable):
            if not whole and images.name(index) not in data.unreadable:
                data.unreadable.add(images.name(index))
                print(f"unreadable, left out of the evaluation: {images.name(index)}")
    train, test = parts
    run: Callable[..., Results] = knn.evaluate if isinstance(task, Knn) else logistic.evaluate
    return run(task, train, test, seed)


def baselines(task: Knn | Logistic, spec: Spec, data: DataModule, device: torch.device, seed: int) -> list[Row]:
    """The same task on an untrained encoder of the same shape and on raw pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = PretrainedEncoder(spec.build(), spec).eval().to(device)
    return [
        Row("random init", evaluate(task, pooled(untrained), data, device, seed)),
        Row("raw pixels", evaluate(task, pixels, data, device, seed)),
    ]


def headline(task: Knn | Logistic) -> str:
    """The result that stands for the task."""
    return f"knn{task.headline}" if isinstance(task, Knn) else "logistic"
