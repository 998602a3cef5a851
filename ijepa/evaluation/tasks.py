"""The tasks of a configuration on every label set; and, beside a checkpoint, random init and raw pixels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ijepa.config import (
    Attentive,
    Counting,
    Data,
    Depth,
    Distance,
    Export,
    Finetune,
    Knn,
    Linear,
    Logistic,
    Lowshot,
    LowshotFinetune,
    Pictures,
    Retrieval,
    Segmentation,
    Task,
    Tasks,
)
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import attentive, dense, export, finetune, knn, linear, logistic, lowshot, pictures, retrieval
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.measures import Measured
from ijepa.models.pretrained import Spec, untrained
from ijepa.util.errors import UnavailableError

MODULES: dict[type, Any] = {
    Knn: knn,
    Logistic: logistic,
    Linear: linear,
    Counting: linear,
    Distance: linear,
    Attentive: attentive,
    Lowshot: lowshot,
    LowshotFinetune: lowshot,
    Finetune: finetune,
    Retrieval: retrieval,
    Depth: dense,
    Segmentation: dense,
    Export: export,
    Pictures: pictures,
}
"""Each has ``evaluate(task, evaluated, ctx)``: what is found by label set, or under "" without labels; ``metrics``,
see there; and perhaps ``validate(task, data)``, which raises ConfigError where the images are not what it needs."""
WRITERS: dict[type, Callable[..., list[Path]]] = {
    Retrieval: retrieval.write,
    Depth: dense.write,
    Segmentation: dense.write,
    Export: export.write,
    Pictures: pictures.write,
}
"""Of those that leave more than results: pictures and files in a folder."""
UNLABELLED = ("retrieval", "depth", "segmentation", "features", "pictures")
"""What can be had of images without labels."""
PIXELS = "raw pixels"


@dataclass(frozen=True)
class ModelResults:
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


def evaluate(tasks: Tasks, evaluated: EvaluatedModel, ctx: EvalContext) -> ModelResults:
    """Every task on every label set; names images that cannot be read, once."""
    names = label_sets(ctx.data)
    row = ModelResults(evaluated.name, {})
    for task_name, task in tasks.chosen().items():
        for name, found in MODULES[type(task)].evaluate(task, evaluated, ctx).items():
            row.results.update({key(names, name, metric): value for metric, value in found.results.items()})
            if found.details is not None:
                row.details.setdefault(task_name, {})[name] = found.details
        if ctx.folder is not None and type(task) in WRITERS:
            row.files.extend(WRITERS[type(task)](task, evaluated, ctx, ctx.folder))
        row.files.extend(ctx.files)
        ctx.files.clear()
    return row


def baselines(tasks: Tasks, spec: Spec, ctx: EvalContext, initial: bool = True) -> list[ModelResults]:
    """The same tasks on an untrained encoder of this shape, unless not ``initial``, and on raw pixels."""
    subjects = [EvaluatedModel(UNTRAINED, untrained(spec, ctx.seed), baseline=True)] if initial else []
    subjects.append(EvaluatedModel(PIXELS, None, baseline=True, patch_size=spec.patch_size))
    return [evaluate(tasks, evaluated, ctx) for evaluated in subjects]


def validate(tasks: Tasks, data: DataModule, images: Data | None = None) -> None:
    """Refuses ``images`` that lack what a task needs: labels, maps; raises ConfigError."""
    for name, task in tasks.chosen().items():
        module = MODULES[type(task)]
        if name not in UNLABELLED and not label_sets(data):
            if images is not None and images.source != "folder":
                problem = f"has no labels, which task={name} needs; try another data="
                raise UnavailableError("data.source", images.source, problem)
            problem = f"task={name} needs labels: a folder per class, for training and validation"
            raise UnavailableError("data.root", images and images.root, problem)
        if hasattr(module, "validate"):
            module.validate(task, data)


def supported_tasks(tasks: Tasks, data: DataModule) -> tuple[Tasks, dict[str, str]]:
    """Those that these images have all that is needed for, and why the others are left out.

    Raises:
        ConfigError: at a mistake in a task itself.
    """
    kept: dict[str, Task] = {}
    left: dict[str, str] = {}
    for name, task in tasks.chosen().items():
        try:
            validate(Tasks(**{name: task}), data)
            kept[name] = task
        except UnavailableError as error:
            left[name] = error.problem
    return Tasks(**kept, paper=tasks.paper), left


def key(names: list[str], name: str, metric: str) -> str:
    """What a result is called: its metric, after its label set where there are several."""
    return f"{name}/{metric}" if name and len(names) > 1 else metric


def shown(tasks: Tasks, rows: list[ModelResults], names: list[str]) -> list[list[str]]:
    """The results that a table shows, by label set: those that some row has."""
    several = len(names) > 1
    listed = [metric for task in tasks.chosen().values() for metric in metrics(task, several)]
    groups = [[key(names, name, metric) for metric in listed] for name in ([*names, ""] if several else [""])]
    found = [[result for result in group if any(result in row.results for row in rows)] for group in groups]
    return [list(dict.fromkeys(group)) for group in found if group]


def promised(tasks: Tasks, names: list[str]) -> list[str]:
    """What the results will be called on these label sets."""
    listed = [metric for task in tasks.chosen().values() for metric in metrics(task, several=False)]
    return [key(names, name, metric) for name in [*names, ""] for metric in listed]


def metrics(task: Task, several: bool = True) -> list[str]:
    """What a table shows of the task, with ``several`` label sets or one; the first stands for the task."""
    return MODULES[type(task)].metrics(task, several)


def headlines(tasks: Tasks, row: ModelResults, names: list[str]) -> dict[str, float]:
    """The first task's result on each label set, or its only one."""
    metric = metrics(tasks.leading())[0]
    found = {name: row.results.get(key(names, name, metric)) for name in names}
    if not any(found.values()):
        found = {metric: row.results.get(metric)}
    return {name: result.value for name, result in found.items() if result is not None}
