"""Where a run tells what it does: metrics.csv always, W&B or TensorBoard beside it.

What is more than a number goes through the functions here, one for each kind, whatever loggers there are.
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
    """Takes words."""

    def log_text(self, name: str, text: str, step: int) -> None: ...


@runtime_checkable
class LogsPictures(Protocol):
    """Takes pictures, RGB."""

    def log_picture(self, name: str, picture: Image.Image, step: int) -> None: ...


@runtime_checkable
class Alerts(Protocol):
    """Tells people who do not look."""

    def alert(self, title: str, text: str) -> None: ...


@runtime_checkable
class Files(Protocol):
    """Keeps files beyond the run's folder."""

    def log_files(self, name: str, paths: Sequence[Path]) -> None: ...


@runtime_checkable
class Connected(Protocol):
    """Has a run of its own that begins and ends."""

    def begin(self) -> None: ...
    def finish(self, failed: bool) -> None: ...


def begin(loggers: Sequence[Logger]) -> None:
    """Before the run; where a logger cannot begin, UserError says why."""
    for logger in loggers:
        if isinstance(logger, Connected):
            logger.begin()


def finish(loggers: Sequence[Logger], failed: bool) -> None:
    """After the run, however it ended: the next one of a sweep is another."""
    for logger in loggers:
        if isinstance(logger, Connected):
            logger.finish(failed)


def log_text(loggers: Sequence[Logger], name: str, text: str, step: int) -> None:
    """Words at a step."""
    for logger in loggers:
        if isinstance(logger, Texts):
            logger.log_text(name, text, step)


def log_picture(loggers: Sequence[Logger], name: str, figure: "Figure", step: int) -> None:
    """A figure as ``pictures/NAME``; for the first process."""
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
    """Something that a person should look at."""
    for logger in loggers:
        if isinstance(logger, Alerts):
            logger.alert(title, text)


def log_files(loggers: Sequence[Logger], name: str, paths: Sequence[Path]) -> None:
    """Files that belong together, ``encoder`` or ``checkpoints``, where they are asked for."""
    for logger in loggers:
        if isinstance(logger, Files):
            logger.log_files(name, paths)
