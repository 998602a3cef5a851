"""The tasks of a configuration on every label set; and, beside a checkpoint, random init and raw pixels."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ijepa.config import Data, Tasks, TaskSection
from ijepa.config.custom import Custom, instantiate
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import specs
from ijepa.evaluation.attentive import AttentiveTask
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.dense import DepthTask, SegmentationTask
from ijepa.evaluation.export import ExportTask
from ijepa.evaluation.finetune import FinetuneTask
from ijepa.evaluation.knn import KnnTask
from ijepa.evaluation.linear import CountTask, DistanceTask, LinearTask
from ijepa.evaluation.logistic import LogisticTask
from ijepa.evaluation.lowshot import LowshotFinetuneTask, LowshotTask
from ijepa.evaluation.measures import Measured
from ijepa.evaluation.pictures import PicturesTask
from ijepa.evaluation.retrieval import RetrievalTask
from ijepa.evaluation.task import ConfiguredTask, Task
from ijepa.models.pretrained import Spec, untrained
from ijepa.util.errors import ConfigError, UnavailableError
from ijepa.util.metric_spec import MetricSpec

TASKS: dict[str, type[ConfiguredTask[Any]]] = {
    task.name: task
    for task in (
        KnnTask, LogisticTask, LinearTask, CountTask, DistanceTask, AttentiveTask, LowshotTask, LowshotFinetuneTask,
        FinetuneTask, RetrievalTask, DepthTask, SegmentationTask, ExportTask, PicturesTask,
    )
}  # fmt: skip
"""Those of this software, by name: each has a section in `Tasks`, and conf/task/NAME.yaml."""
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


def chosen(tasks: Tasks) -> dict[str, Task]:
    """The tasks that the configuration has, by name; those of the user's own by their ``_target_``.

    Raises:
        UserError: when such a class cannot be imported, its options do not fit, or it has no metric.
    """
    return {name: _made(name, section) for name, section in tasks.chosen().items()}


def _made(name: str, section: TaskSection | Custom) -> Task:
    if not isinstance(section, Custom):
        return TASKS[name](section)
    made: Task = instantiate(f"task.{name}", section, Task)
    made.name = name
    if not made.metrics(several=True):
        raise ConfigError(f"task.{name}._target_", section.target, "has no metrics; return a MetricSpec at least")
    return made


def evaluate(tasks: Tasks, evaluated: EvaluatedModel, ctx: EvalContext) -> ModelResults:
    """Every task on every label set; names images that cannot be read, once."""
    names = label_sets(ctx.data)
    row = ModelResults(evaluated.name, {})
    for task_name, task in chosen(tasks).items():
        for name, found in task.evaluate(evaluated, ctx).items():
            row.results.update({key(names, name, metric): value for metric, value in found.results.items()})
            if found.details is not None:
                row.details.setdefault(task_name, {})[name] = found.details
        if ctx.folder is not None:
            ctx.folder.mkdir(parents=True, exist_ok=True)
            row.files.extend(task.write(evaluated, ctx, ctx.folder))
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
    for name, task in chosen(tasks).items():
        if task.needs_labels and not label_sets(data):
            if images is not None and images.source != "folder":
                problem = f"has no labels, which task={name} needs; try another data="
                raise UnavailableError("data.source", images.source, problem)
            problem = f"task={name} needs labels: a folder per class, for training and validation"
            raise UnavailableError("data.root", images and images.root, problem)
        task.validate(data)


def supported_tasks(tasks: Tasks, data: DataModule) -> tuple[Tasks, dict[str, str]]:
    """Those that these images have all that is needed for, and why the others are left out.

    Raises:
        ConfigError: at a mistake in a task itself.
    """
    kept: dict[str, TaskSection | Custom] = {}
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
    listed = [spec.name for task in chosen(tasks).values() for spec in task.metrics(several) if spec.better]
    groups = [[key(names, name, metric) for metric in listed] for name in ([*names, ""] if several else [""])]
    found = [[result for result in group if any(result in row.results for row in rows)] for group in groups]
    return [list(dict.fromkeys(group)) for group in found if group]


def promised(tasks: Tasks, names: list[str]) -> dict[str, MetricSpec]:
    """The results on these label sets, by what they will be called."""
    listed = [spec for task in chosen(tasks).values() for spec in task.metrics(several=False)]
    return {key(names, name, spec.name): spec for name in [*names, ""] for spec in listed}


def main_metric(tasks: Tasks) -> MetricSpec:
    """The first metric of the first task that has one: it stands for all."""
    return next(iter(chosen(tasks.first()).values())).metrics(several=True)[0]


def undescribed(tasks: Tasks) -> dict[str, dict[str, Any]]:
    """For the files of a run: the metrics that a report would not know by name, and a headline of another kind."""
    main = main_metric(tasks)
    headline = replace(specs.HEADLINE, unit=main.unit, better=main.better)
    found = [spec for task in chosen(tasks).values() for spec in task.metrics(several=False)]
    return specs.undescribed([headline, *found])


def headlines(tasks: Tasks, row: ModelResults, names: list[str]) -> dict[str, float]:
    """The first task's result on each label set, or its only one."""
    metric = main_metric(tasks).name
    found = {name: row.results.get(key(names, name, metric)) for name in names}
    if not any(found.values()):
        found = {metric: row.results.get(metric)}
    return {name: result.value for name, result in found.items() if result is not None}
