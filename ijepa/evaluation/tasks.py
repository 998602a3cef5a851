"""The tasks of a configuration on every label set; and, beside a checkpoint, random init and raw pixels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ijepa.config import Export, Knn, Linear, Logistic, Lowshot, Retrieval, Task, Tasks
from ijepa.evaluation import export, knn, linear, logistic, lowshot, retrieval
from ijepa.evaluation.bench import Bench, Subject, label_sets
from ijepa.evaluation.measures import Measured
from ijepa.models.pretrained import PretrainedEncoder, Spec

MODULES: dict[type, Any] = {
    Knn: knn,
    Logistic: logistic,
    Linear: linear,
    Lowshot: lowshot,
    Retrieval: retrieval,
    Export: export,
}
"""Each has ``evaluate(task, subject, bench)``: what is found by label set; and ``metrics``, see there."""
WRITERS: dict[type, Callable[..., list[Path]]] = {Retrieval: retrieval.write, Export: export.write}
"""Of those that leave more than results: pictures and files in a folder."""
UNTRAINED, PIXELS = "random init", "raw pixels"


@dataclass(frozen=True)
class Row:
    """One line of a results table.

    Attributes:
        name: of what was evaluated.
        results: by metric; where there are several label sets, by label set / metric.
        details: what else the tasks tell, by task and label set.
        files: what they have written.
    """

    name: str
    results: dict[str, Measured]
    details: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """The results without what they were computed from."""
        return {name: measured.value for name, measured in self.results.items()}

    def intervals(self, seed: int) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the results that have one."""
        found = {name: measured.interval(seed) for name, measured in self.results.items()}
        return {name: interval for name, interval in found.items() if interval is not None}


def evaluate(tasks: Tasks, subject: Subject, bench: Bench) -> Row:
    """Every task on every label set; names images that cannot be read, once."""
    names = label_sets(bench.data)
    row = Row(subject.name, {})
    for task_name, task in tasks.chosen().items():
        for name, found in MODULES[type(task)].evaluate(task, subject, bench).items():
            row.results.update({key(names, name, metric): value for metric, value in found.results.items()})
            if found.details is not None:
                row.details.setdefault(task_name, {})[name] = found.details
        if bench.folder is not None and type(task) in WRITERS:
            row.files.extend(WRITERS[type(task)](task, subject, bench, bench.folder))
    return row


def baselines(tasks: Tasks, spec: Spec | None, bench: Bench) -> list[Row]:
    """The same tasks on an untrained encoder of this shape, if any, and on raw pixels."""
    subjects = [Subject(UNTRAINED, untrained(spec, bench.seed), baseline=True)] if spec else []
    subjects.append(Subject(PIXELS, None, baseline=True))
    return [evaluate(tasks, subject, bench) for subject in subjects]


def untrained(spec: Spec, seed: int) -> PretrainedEncoder:
    """An encoder of this shape with initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretrainedEncoder(spec.build(), spec).eval()


def key(names: list[str], name: str, metric: str) -> str:
    """What a result is called: its metric, after its label set where there are several."""
    return f"{name}/{metric}" if len(names) > 1 else metric


def metrics(task: Task, several: bool = True) -> list[str]:
    """What a table shows of the task, with ``several`` label sets or one; the first stands for the task."""
    return MODULES[type(task)].metrics(task, several)


def headlines(tasks: Tasks, row: Row, names: list[str]) -> dict[str, float]:
    """The first task's result on each label set."""
    metric = metrics(tasks.leading())[0]
    return {name: row.results[key(names, name, metric)].value for name in names}
