"""The base class of evaluation tasks: requirements, metrics, results and files."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from ijepa.config import Section
from ijepa.config.fields import FileTaskSection
from ijepa.data.datamodule import DataModule
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.measures import MetricValue
from ijepa.util.metric_spec import MetricSpec

__all__ = ["ConfiguredTask", "EvalContext", "EvaluatedModel", "MetricSpec", "MetricValue", "Task", "TaskResult"]

ConfigT = TypeVar("ConfigT", bound=Section)
FileConfigT = TypeVar("FileConfigT", bound=FileTaskSection)


class Task(ABC):
    """An evaluation task; its constructor takes its options. One object serves one model at a time.

    Attributes:
        name: key of its options in the configuration: ``task.NAME``.
        needs_labels: whether the task requires labels.
    """

    name: str = ""
    needs_labels: ClassVar[bool] = True

    @abstractmethod
    def metrics(self, several: bool) -> list[MetricSpec]:
        """The metrics, in the order of tables; the first is the main metric.

        Args:
            several: whether there are several label sets; return few metrics then, since tables have little room.
        """

    def validate(self, data: DataModule) -> None:  # noqa: B027  # most tasks have nothing to add
        """Checks options and images before anything runs.

        Raises:
            UnavailableError: if the images lack what the task needs; task=paper then skips the task.
            ConfigError: if an option is invalid.
        """

    @abstractmethod
    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """The results by label set, or under "" if the task needs none; every process calls it."""

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Writes pictures or features to ``folder``, after `evaluate`, on rank 0; returns the paths."""
        return []


class ConfiguredTask(Task, Generic[ConfigT]):
    """A built-in task; its options are a section of the schema."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def applies_to(self, names: list[str]) -> bool:
        """Whether ``labels`` among its options, if it has them, names any of the label sets ``names``."""
        labels = getattr(self.config, "labels", None)
        return labels is None or any(name in names for name in labels)

    @property
    def key(self) -> str:
        """The configuration key of its options, for messages."""
        return f"task.{self.name}"


class FileTask(ConfiguredTask[FileConfigT]):
    """A task that writes files from the features of all images, with or without labels, and gives no metric."""

    needs_labels = False

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """No results; extracts the features, on all devices, for `write`; not of baselines."""
        if not model.baseline:
            ctx.features(model, ctx.layers, self.config.batch_size)
        return {}

    def metrics(self, several: bool) -> list[MetricSpec]:
        """No metrics."""
        return []
