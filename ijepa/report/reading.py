"""Reads a run's folder for the report; optional files that are corrupt become notes."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from ijepa.report import text
from ijepa.report.pictures import Picture, pictures
from ijepa.report.settings import differences
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import read_config
from ijepa.run_folder.evaluation import Intervals, Results, evaluation_files, finite_results, read_evaluation
from ijepa.run_folder.health import StoredVerdict, read_verdicts
from ijepa.run_folder.metrics import read_metrics
from ijepa.run_folder.summary import read_summary
from ijepa.util.errors import ConfigError, UserError

KEY = "RUN_DIR"
AXES = {"step": "step", "epoch": "epoch", "images": "images", "flops": "FLOPs", "seconds": "seconds"}
"""Columns of metrics.csv that can be the x axis, with their labels."""

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation by evaluate.py: its folder's name; for the rest, see `ijepa.run_folder.evaluation`."""

    name: str
    results: Results
    intervals: Intervals
    images: int | None
    metrics: Any


@dataclass
class RunRecord:
    """A run, as read from its folder.

    Attributes:
        folder: as the user typed it.
        name: unique among the runs on the page.
        config: the newest configuration: of the start, or of the last resume that changed it.
        changes: the changes by resumes: step, and `differences`.
        metrics: metrics.csv by column, None in empty cells.
        written: modification time of metrics.csv.
        summary: None while the run is not finished.
        verdicts: of the health checks.
        evaluations: by evaluate.py.
        pictures: those that could be read.
        notes: files that could not be read or were left out, a line each.
    """

    folder: Path
    name: str
    config: dict[Any, Any]
    changes: list[tuple[int, list[tuple[str, list[str | None]]]]]
    metrics: dict[str, list[float | None]]
    written: datetime
    summary: dict[str, Any] | None
    verdicts: list[StoredVerdict] = field(default_factory=list)
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def last(self, column: str) -> float | None:
        """The newest value of a column."""
        return next((value for value in reversed(self.metrics.get(column, [])) if value is not None), None)

    @property
    def steps(self) -> int:
        """The last step in metrics.csv."""
        return int(self.last("step") or 0)

    @property
    def total(self) -> int | None:
        """The configured number of steps; None if it cannot be computed."""
        with contextlib.suppress(AttributeError, KeyError, TypeError, ArithmeticError):
            schedule = self.config["schedule"]
            if schedule["max_steps"] is not None:
                return _count(schedule["max_steps"])
            images, epoch = self.last("images"), self.last("epoch")
            per_epoch = (images or 0) / (epoch or 0) / self.config["data"]["batch_size"]
            return _count(schedule["epochs"] * per_epoch)
        return None

    @property
    def results(self) -> Results:
        """Results at the end of training; empty while the run is not finished."""
        return finite_results((self.summary or {}).get("results"))


def read(folders: list[Path]) -> list[RunRecord]:
    """Reads the runs in ``folders``, without duplicates, with unique names.

    Raises:
        UserError: when a folder is not a run's, or its config.yaml, metrics.csv or summary.json is corrupt.
    """
    distinct = list({folder.expanduser().resolve(): folder.expanduser() for folder in folders}.items())
    names = _names([resolved for resolved, _ in distinct])
    return [_read(folder, resolved, name) for (resolved, folder), name in zip(distinct, names, strict=True)]


def _names(folders: list[Path]) -> list[str]:
    """The shortest end of each path that is unique."""
    names = [folder.name or str(folder) for folder in folders]
    for depth in range(2, max((len(folder.parts) for folder in folders), default=0) + 1):
        names = ["/".join(folder.parts[-depth:]).replace("//", "/") if names.count(name) > 1 else name
                 for folder, name in zip(folders, names, strict=True)]  # fmt: skip
    return [text.name(Path(name)) for name in names]


def _read(folder: Path, resolved: Path, name: str) -> RunRecord:
    if not resolved.exists():
        raise ConfigError(KEY, text.name(folder), "no such folder")
    if not resolved.is_dir():
        raise ConfigError(KEY, text.name(folder), "is a file; give a run's folder")
    files = RunFolder(resolved)
    for needed in (files.config, files.metrics):
        if not needed.is_file():
            raise ConfigError(KEY, text.name(folder), f"not the folder of a run: {needed.name} is missing")
    config = _config(files.config)
    changes = []
    for step, path in files.later_configs():
        later = _config(path)
        changes.append((step, differences([config, later])))
        config = later
    metrics = read_metrics(files.metrics).numbers()
    written = datetime.fromtimestamp(files.metrics.stat().st_mtime)
    run = RunRecord(folder, name, config, changes, metrics, written, read_summary(files.summary))
    run.verdicts = _optional(files.health, resolved, run.notes, read_verdicts) or []
    for path in evaluation_files(files):
        stored = _optional(path, resolved, run.notes, read_evaluation)
        if stored is not None:
            label = text.name(path.parent.relative_to(files.evaluations))
            run.evaluations.append(
                EvaluationRecord(label, stored.results, stored.intervals, stored.images, stored.metrics)
            )
    run.pictures, notes = pictures(resolved)
    run.notes.extend(notes)
    return run


def _config(path: Path) -> dict[Any, Any]:
    try:
        values = OmegaConf.to_container(read_config(path), resolve=True)
    except UserError:
        raise
    except Exception:  # e.g. an interpolation of a missing key
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not the configuration of a run; restore the file that train.py wrote")
    return values


def _count(value: object) -> int | None:
    """The number of steps, at least one, next to a value that a file holds; None if it can be none."""
    if isinstance(value, int | float) and 0 <= value < 2**53:  # beyond, or not a number: a damaged file
        return max(round(value), 1)
    return None


def _optional(path: Path, folder: Path, notes: list[str], read: Callable[[Path], T]) -> T | None:
    """The contents of an optional file of ``folder``; None, and a note, if it is corrupt."""
    try:
        return read(path)
    except UserError:
        notes.append(f"{text.name(path.relative_to(folder))} is corrupt and was skipped")
        return None
