"""What an evaluation task is: its needs, its metrics, and what it finds, draws and writes."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from ijepa.config import Section
from ijepa.data.datamodule import DataModule
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.measures import Measured
from ijepa.util.metric_spec import MetricSpec

__all__ = ["ConfiguredTask", "EvalContext", "EvaluatedModel", "Measured", "MetricSpec", "Task", "TaskResult"]

ConfigT = TypeVar("ConfigT", bound=Section)


class Task(ABC):
    """An evaluation task; its constructor takes its options. One object serves one model at a time.

    Attributes:
        name: among the tasks of a configuration: ``task.NAME`` holds its options.
        needs_labels: whether images without labels leave it nothing to do.
    """

    name: str = ""
    needs_labels: ClassVar[bool] = True

    @abstractmethod
    def metrics(self, several: bool) -> list[MetricSpec]:
        """What it measures, as tables show it; the first stands for the task.

        Args:
            several: whether there are several label sets, and little room for each.
        """

    def validate(self, data: DataModule) -> None:  # noqa: B027  # most tasks have nothing to add
        """Raises UnavailableError where the images lack what it needs, ConfigError where an option does not fit."""

    @abstractmethod
    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """The results by label set, or under "" without one; every process calls it."""

    def write(self, evaluated: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Files that it leaves in ``folder`` after `evaluate`, where files are wanted: pictures, features."""
        return []


class ConfiguredTask(Task, Generic[ConfigT]):
    """A task of this software, whose options are a section of the schema."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    def key(self) -> str:
        """Of its section, for messages."""
        return f"task.{self.name}"
