"""Logging: metrics.csv always, W&B or TensorBoard in addition.

The functions here log texts, pictures, alerts and artifacts to those loggers that support them: a logger supports what
it has a method for.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lightning.pytorch.loggers import Logger
from PIL import Image

from ijepa.loggers.metrics import MetricsCSV

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MetricsCSV", "alert", "begin", "finish", "log_files", "log_picture", "log_text"]

DPI = 120
"""Resolution of logged pictures."""


@runtime_checkable
class LogsTexts(Protocol):
    """Logs texts."""

    def log_text(self, name: str, text: str, step: int) -> None: ...


@runtime_checkable
class LogsPictures(Protocol):
    """Logs RGB pictures."""

    def log_picture(self, name: str, picture: Image.Image, step: int) -> None: ...


@runtime_checkable
class SendsAlerts(Protocol):
    """Sends alerts."""

    def alert(self, title: str, text: str) -> None: ...


@runtime_checkable
class LogsFiles(Protocol):
    """Uploads files as artifacts."""

    def log_files(self, name: str, paths: Sequence[Path]) -> None: ...


@runtime_checkable
class HasRun(Protocol):
    """Has a run of its own, which must be started and finished."""

    def begin(self) -> None: ...
    def finish(self, failed: bool) -> None: ...


def begin(loggers: Sequence[Logger]) -> None:
    """Starts all loggers before the run; raises UserError if one cannot start."""
    for logger in loggers:
        if isinstance(logger, HasRun):
            logger.begin()


def finish(loggers: Sequence[Logger], failed: bool) -> None:
    """Finishes all loggers after the run, also after a failure, so that the next run of a sweep is a new one."""
    for logger in loggers:
        if isinstance(logger, HasRun):
            logger.finish(failed)


def log_text(loggers: Sequence[Logger], name: str, text: str, step: int) -> None:
    """Logs a text at a step."""
    for logger in loggers:
        if isinstance(logger, LogsTexts):
            logger.log_text(name, text, step)


def log_picture(loggers: Sequence[Logger], name: str, figure: "Figure", step: int) -> None:
    """Logs a figure as ``pictures/NAME``; call it on rank 0."""
    supported = [logger for logger in loggers if isinstance(logger, LogsPictures)]
    if not supported:
        return
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as image:
        picture = image.convert("RGB")
    for logger in supported:
        logger.log_picture(f"pictures/{name}", picture, step)


def alert(loggers: Sequence[Logger], title: str, text: str) -> None:
    """Sends an alert."""
    for logger in loggers:
        if isinstance(logger, SendsAlerts):
            logger.alert(title, text)


def log_files(loggers: Sequence[Logger], name: str, paths: Sequence[Path]) -> None:
    """Uploads the files of an artifact, ``encoder`` or ``checkpoints``, if the logger is configured to."""
    for logger in loggers:
        if isinstance(logger, LogsFiles):
            logger.log_files(name, paths)
