"""Logging: metrics.csv always, W&B or TensorBoard in addition.

Texts, pictures, alerts and artifacts are logged by the functions here, which work with any set of loggers.
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
"""Of pictures on a screen."""


@runtime_checkable
class Texts(Protocol):
    """Logs texts."""

    def log_text(self, name: str, text: str, step: int) -> None: ...


@runtime_checkable
class LogsPictures(Protocol):
    """Logs RGB pictures."""

    def log_picture(self, name: str, picture: Image.Image, step: int) -> None: ...


@runtime_checkable
class Alerts(Protocol):
    """Sends alerts."""

    def alert(self, title: str, text: str) -> None: ...


@runtime_checkable
class Files(Protocol):
    """Uploads files as artifacts."""

    def log_files(self, name: str, paths: Sequence[Path]) -> None: ...


@runtime_checkable
class Connected(Protocol):
    """Has its own run, which must be started and finished."""

    def begin(self) -> None: ...
    def finish(self, failed: bool) -> None: ...


def begin(loggers: Sequence[Logger]) -> None:
    """Starts all loggers before the run; raises UserError if one cannot start."""
    for logger in loggers:
        if isinstance(logger, Connected):
            logger.begin()


def finish(loggers: Sequence[Logger], failed: bool) -> None:
    """Finishes all loggers after the run, also after a failure, so that the next run of a sweep is a new one."""
    for logger in loggers:
        if isinstance(logger, Connected):
            logger.finish(failed)


def log_text(loggers: Sequence[Logger], name: str, text: str, step: int) -> None:
    """Logs a text at a step."""
    for logger in loggers:
        if isinstance(logger, Texts):
            logger.log_text(name, text, step)


def log_picture(loggers: Sequence[Logger], name: str, figure: "Figure", step: int) -> None:
    """Logs a figure as ``pictures/NAME``; to be called on rank 0."""
    chosen = [logger for logger in loggers if isinstance(logger, LogsPictures)]
    if not chosen:
        return
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as image:
        picture = image.convert("RGB")
    for logger in chosen:
        logger.log_picture(f"pictures/{name}", picture, step)


def alert(loggers: Sequence[Logger], title: str, text: str) -> None:
    """Sends an alert."""
    for logger in loggers:
        if isinstance(logger, Alerts):
            logger.alert(title, text)


def log_files(loggers: Sequence[Logger], name: str, paths: Sequence[Path]) -> None:
    """Uploads a group of files, ``encoder`` or ``checkpoints``, if configured."""
    for logger in loggers:
        if isinstance(logger, Files):
            logger.log_files(name, paths)
