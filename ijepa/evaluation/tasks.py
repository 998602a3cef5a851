"""The tasks of a configuration on every label set; and, beside a checkpoint, random init and raw pixels."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from ijepa.config import Knn, Logistic, Tasks
from ijepa.data.datamodule import DataModule
from ijepa.data.sources import Images, UnreadableError
from ijepa.evaluation import knn, logistic
from ijepa.evaluation.features import Embed, Features, Runtime, extract, pixels
from ijepa.models.pretrained import PretrainedEncoder, Spec

Results = dict[str, float]
"""By metric; where there are several label sets, by label set / metric."""


class Row(NamedTuple):
    """One line of a results table."""

    name: str
    results: Results


def label_sets(data: DataModule) -> list[str]:
    """The label sets that both training and validation images have; none without validation images."""
    train, val = data.source.train, data.source.val
    return [name for name in train.labels if name in val.labels and len(train) and len(val)]


def evaluate(tasks: Tasks, embed: Embed, data: DataModule, runtime: Runtime, seed: int) -> Results:
    """Every task on the features that ``embed`` makes of the data's images; names those that cannot be read, once."""
    chosen = tasks.chosen()
    batch_size = max(task.batch_size for task in chosen)
    names = label_sets(data)
    train, val = (
        _features(embed, images, data, names, batch_size, runtime.device)
        for images in (data.source.train, data.source.val)
    )
    results: Results = {}
    for task in chosen:
        run: Callable[..., dict[str, Results]] = knn.evaluate if isinstance(task, Knn) else logistic.evaluate
        for name, found in run(task, train, val, seed).items():
            results |= {key(names, name, metric): value for metric, value in found.items()}
    return results


def baselines(tasks: Tasks, spec: Spec, data: DataModule, runtime: Runtime, seed: int) -> list[Row]:
    """The same tasks on an untrained encoder of the same shape and on raw pixels."""
    return [
        Row("random init", evaluate(tasks, runtime.pooled(untrained(spec, seed)), data, runtime, seed)),
        Row("raw pixels", evaluate(tasks, pixels, data, runtime, seed)),
    ]


def untrained(spec: Spec, seed: int) -> PretrainedEncoder:
    """An encoder of this shape with initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretrainedEncoder(spec.build(), spec).eval()


def key(names: list[str], name: str, metric: str) -> str:
    """What a result is called: its metric, after its label set where there are several."""
    return f"{name}/{metric}" if len(names) > 1 else metric


def headline(task: Knn | Logistic) -> str:
    """The metric that stands for the task."""
    return f"knn{task.headline}" if isinstance(task, Knn) else "logistic"


def headlines(tasks: Tasks, results: Results, names: list[str]) -> dict[str, float]:
    """The first task's result on each label set."""
    metric = headline(tasks.chosen()[0])
    return {name: results[key(names, name, metric)] for name in names}


def _features(
    embed: Embed, images: Images, data: DataModule, names: list[str], batch_size: int, device: torch.device
) -> Features:
    values, readable = extract(embed, data.eval_dataloader(images, batch_size), device)
    for index in (~readable).nonzero().flatten().tolist():
        if images.name(index) not in data.unreadable:
            data.unreadable[images.name(index)] = fault = _fault(images, index)
            print(f"unreadable, left out of the evaluation: {fault}")
    return Features(values, {name: torch.tensor(images.labels[name])[readable] for name in names})


def _fault(images: Images, index: int) -> str:
    """Why an image cannot be read, in the words of training."""
    try:
        images.read(index)
    except UnreadableError as fault:
        return str(fault)
    return images.name(index)  # by now it can
