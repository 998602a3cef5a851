"""Runs the tasks of a configuration on every label set, for a model and its baselines: random init and raw pixels."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ijepa.config import Data, Tasks, TaskSection
from ijepa.config.custom import Custom, instantiate
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import specs
from ijepa.evaluation.atlas import MapTask
from ijepa.evaluation.attentive import AttentiveTask
from ijepa.evaluation.classifiers import ClassifierTask
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.decoding.task import DecodeTask
from ijepa.evaluation.dense import DepthTask, SegmentationTask
from ijepa.evaluation.duplicates import DuplicatesTask
from ijepa.evaluation.export import ExportTask
from ijepa.evaluation.finetune import FinetuneTask
from ijepa.evaluation.knn import KnnTask
from ijepa.evaluation.linear import CountTask, DistanceTask, LinearTask
from ijepa.evaluation.logistic import LogisticTask
from ijepa.evaluation.lowshot import LowshotFinetuneTask, LowshotTask
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.pictures import PicturesTask
from ijepa.evaluation.retrieval import RetrievalTask
from ijepa.evaluation.task import ConfiguredTask, Task
from ijepa.models.pretrained import Spec, untrained_encoder
from ijepa.util.errors import ConfigError, UnavailableError
from ijepa.util.metric_spec import MetricSpec

TASKS: dict[str, type[ConfiguredTask[Any]]] = {
    task.name: task
    for task in (
        KnnTask, LogisticTask, LinearTask, CountTask, DistanceTask, AttentiveTask, LowshotTask, LowshotFinetuneTask,
        FinetuneTask, RetrievalTask, DuplicatesTask, MapTask, DepthTask, SegmentationTask, ExportTask, PicturesTask,
        DecodeTask,
    )
}  # fmt: skip
"""The built-in tasks, by name: each has a section in `Tasks`, and conf/task/NAME.yaml."""
PIXELS = "raw pixels"
"""Name of the baseline without an encoder."""


@dataclass(frozen=True)
class ModelResults:
    """The results of one model.

    Attributes:
        name: of the model.
        results: by `result_key`.
        details: for metrics.json, by task and label set.
        files: paths of the files that the tasks have written.
    """

    name: str
    results: dict[str, MetricValue]
    details: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """The values of the results, by `result_key`."""
        return {name: result.value for name, result in self.results.items()}

    def intervals(self, seed: int) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the results that have one, by `result_key`."""
        intervals = {name: result.interval(seed) for name, result in self.results.items()}
        return {name: interval for name, interval in intervals.items() if interval is not None}


def build_tasks(tasks: Tasks) -> dict[str, Task]:
    """Instantiates the tasks of a configuration, by name; custom ones from their ``_target_``.

    Raises:
        UserError: if a custom task cannot be imported, does not accept its options, or has no metric.
    """
    return {name: _build_task(name, section) for name, section in tasks.chosen().items()}


def _build_task(name: str, section: TaskSection | Custom) -> Task:
    if not isinstance(section, Custom):
        return TASKS[name](section)
    task: Task = instantiate(f"task.{name}", section, Task)
    task.name = name
    if not task.metrics(several=True):
        raise ConfigError(f"task.{name}._target_", section.target, "has no metrics; return a MetricSpec at least")
    return task


def with_classifiers(tasks: Tasks) -> tuple[str, ...]:
    """The names of the tasks that train classifiers."""
    return tuple(name for name, task in build_tasks(tasks).items() if isinstance(task, ClassifierTask))


def evaluate(tasks: Tasks, model: EvaluatedModel, ctx: EvalContext) -> ModelResults:
    """Runs every task on every label set, and writes its files if ``ctx.folder`` is set."""
    names = label_sets(ctx.data)
    collected = ModelResults(model.name, {})
    for task_name, task in build_tasks(tasks).items():
        for part in ctx.labelled_contexts() if task.needs_labels else [ctx]:
            if part is not ctx and isinstance(task, ConfiguredTask) and not task.applies_to(label_sets(part.data)):
                continue
            for name, result in task.evaluate(model, part).items():
                values = {result_key(names, name, metric): value for metric, value in result.results.items()}
                collected.results.update(values)
                if result.details is not None:
                    collected.details.setdefault(task_name, {})[name] = result.details
            if ctx.folder is not None:
                ctx.folder.mkdir(parents=True, exist_ok=True)
                collected.files.extend(task.write(model, part, ctx.folder))
            collected.files.extend(ctx.files)
            ctx.files.clear()
    return collected


def baselines(tasks: Tasks, spec: Spec, ctx: EvalContext, initial: bool = True) -> list[ModelResults]:
    """The same tasks on raw pixels and, if ``initial``, on a randomly initialised encoder of the same shape."""
    models = [EvaluatedModel(UNTRAINED, untrained_encoder(spec, ctx.seed), baseline=True)] if initial else []
    models.append(EvaluatedModel(PIXELS, None, baseline=True, pixel_patch_size=spec.patch_size))
    return [evaluate(tasks, model, ctx) for model in models]


def validate(tasks: Tasks, data: DataModule, images: Data | None = None) -> None:
    """Validates every task.

    Args:
        tasks: the configured tasks.
        data: the images.
        images: the ``data`` section of the configuration, for messages.

    Raises:
        UnavailableError: if the images lack what a task needs: labels or maps.
        ConfigError: if an option of a task is invalid.
    """
    for name, task in build_tasks(tasks).items():
        if task.needs_labels and not label_sets(data):
            if images is not None and images.source != "folder":
                problem = f"has no labels, which task={name} needs; try another data="
                raise UnavailableError("data.source", images.source, problem)
            problem = f"task={name} needs labels of training and validation images: class folders, or data.labels=CSV"
            raise UnavailableError("data.root", images and images.root, problem)
        task.validate(data)


def supported_tasks(tasks: Tasks, data: DataModule) -> tuple[Tasks, dict[str, str]]:
    """The tasks whose requirements the images meet, and the reason why each other task is skipped.

    Raises:
        ConfigError: if an option of a task is invalid.
    """
    supported: dict[str, TaskSection | Custom] = {}
    skipped: dict[str, str] = {}
    for name, task in tasks.chosen().items():
        try:
            validate(Tasks(**{name: task}), data)
            supported[name] = task
        except UnavailableError as error:
            skipped[name] = error.problem
    return Tasks(**supported, paper=tasks.paper), skipped


def result_key(names: list[str], name: str, metric: str) -> str:
    """The name of a result: METRIC, or LABEL_SET/METRIC if there are several label sets ``names``."""
    return f"{name}/{metric}" if name and len(names) > 1 else metric


def table_metrics(tasks: Tasks, rows: list[ModelResults], names: list[str]) -> list[list[str]]:
    """The result keys that a table shows, grouped by label set: those for which a row has a value."""
    several = len(names) > 1
    listed = [spec.name for task in build_tasks(tasks).values() for spec in task.metrics(several) if spec.better]
    groups = [[result_key(names, name, metric) for metric in listed] for name in ([*names, ""] if several else [""])]
    present = [[name for name in group if any(name in row.results for row in rows)] for group in groups]
    return [list(dict.fromkeys(group)) for group in present if group]


def result_specs(tasks: Tasks, names: list[str]) -> dict[str, MetricSpec]:
    """The spec of each result that the tasks give on label sets ``names``, by `result_key`."""
    listed = [spec for task in build_tasks(tasks).values() for spec in task.metrics(several=False)]
    return {result_key(names, name, spec.name): spec for name in [*names, ""] for spec in listed}


def main_metric(tasks: Tasks) -> MetricSpec:
    """The first metric of the first task that has metrics; sweeps and headlines use it."""
    return next(iter(build_tasks(tasks.first_only()).values())).metrics(several=True)[0]


def plain_custom_specs(tasks: Tasks) -> dict[str, dict[str, Any]]:
    """`specs.plain_custom_specs` of the tasks' metrics and of the headline, which has the main metric's unit."""
    main = main_metric(tasks)
    headline = replace(specs.HEADLINE, unit=main.unit, better=main.better)
    metrics = [spec for task in build_tasks(tasks).values() for spec in task.metrics(several=False)]
    return specs.plain_custom_specs([headline, *metrics])


def headlines(tasks: Tasks, row: ModelResults, names: list[str]) -> dict[str, float]:
    """The main metric on each label set ``names``; by its own name if the task has no label sets."""
    metric = main_metric(tasks).name
    results = {name: row.results.get(result_key(names, name, metric)) for name in names}
    if not any(results.values()):
        results = {metric: row.results.get(metric)}
    return {name: result.value for name, result in results.items() if result is not None}
