"""A run's folder, read: what it says of itself, and what of it could not be read."""

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
"""The columns of metrics.csv that others are drawn against."""

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """What evaluate.py has written: results, their intervals, on how many images, and specs of unusual metrics."""

    name: str
    results: Results
    intervals: Intervals
    images: int | None
    metrics: Any


@dataclass
class RunRecord:
    """A run.

    Attributes:
        folder: as it was given.
        name: tells it from the others on the page.
        config: the newest: of its beginning, or of the last resume that changed something lasting.
        changes: what resumes have changed: after which step, and `differences`.
        metrics: metrics.csv by column, None in empty cells.
        written: when metrics.csv was.
        summary: None while the run is not finished.
        verdicts: along the run.
        evaluations: by evaluate.py.
        pictures: all that could be read.
        notes: what could not, and what was left out.
    """

    folder: Path
    name: str
    config: dict[Any, Any]
    changes: list[tuple[int, list[tuple[str, list[str | None]]]]]
    metrics: dict[str, list[float | None]]
    written: datetime
    summary: dict[str, Any] | None
    verdicts: list[StoredVerdict] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def last(self, column: str) -> float | None:
        """The newest value of a column."""
        return next((value for value in reversed(self.metrics.get(column, [])) if value is not None), None)

    @property
    def steps(self) -> int:
        """Steps that are done, as far as metrics.csv tells."""
        return int(self.last("step") or 0)

    @property
    def total(self) -> int | None:
        """Steps that the run is to have."""
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
            schedule = self.config["schedule"]
            if schedule["max_steps"] is not None:
                return int(schedule["max_steps"])
            images, epoch = self.last("images"), self.last("epoch")
            per_epoch = (images or 0) / (epoch or 0) / self.config["data"]["batch_size"]
            return max(round(schedule["epochs"] * per_epoch), 1)
        return None

    @property
    def results(self) -> Results:
        """Those of the run's own end."""
        return finite_results((self.summary or {}).get("results"))


def read(folders: list[Path]) -> list[RunRecord]:
    """The runs, each once, with names that tell them apart.

    Raises:
        UserError: names what is no run, or a file of it that is broken.
    """
    distinct = list({folder.expanduser().resolve(): folder.expanduser() for folder in folders}.items())
    names = _names([whole for whole, _ in distinct])
    return [_read(folder, whole, name) for (whole, folder), name in zip(distinct, names, strict=True)]


def _names(folders: list[Path]) -> list[str]:
    """As much of the end of each path as tells it from the others."""
    names = [folder.name or str(folder) for folder in folders]
    for depth in range(2, max((len(folder.parts) for folder in folders), default=0) + 1):
        names = ["/".join(folder.parts[-depth:]).replace("//", "/") if names.count(name) > 1 else name
                 for folder, name in zip(folders, names, strict=True)]  # fmt: skip
    return [text.name(Path(name)) for name in names]


def _read(folder: Path, whole: Path, name: str) -> RunRecord:
    if not whole.exists():
        raise ConfigError(KEY, text.name(folder), "no such folder")
    if not whole.is_dir():
        raise ConfigError(KEY, text.name(folder), "is a file; give a run's folder")
    files = RunFolder(whole)
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
    run.verdicts = _optional(files.health, whole, run.notes, read_verdicts) or []
    for path in evaluation_files(files):
        found = _optional(path, whole, run.notes, read_evaluation)
        if found is not None:
            named = text.name(path.parent.relative_to(files.evaluations))
            run.evaluations.append(Evaluation(named, found.results, found.intervals, found.images, found.metrics))
    run.pictures, notes = pictures(whole)
    run.notes.extend(notes)
    return run


def _config(path: Path) -> dict[Any, Any]:
    try:
        values = OmegaConf.to_container(read_config(path), resolve=True)
    except UserError:
        raise
    except Exception:  # an interpolation of nothing
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not the configuration of a run; restore the file that train.py wrote")
    return values


def _optional(path: Path, folder: Path, notes: list[str], read: Callable[[Path], T]) -> T | None:
    """What a file of ``folder`` tells; a broken one becomes a note."""
    try:
        return read(path)
    except UserError:
        notes.append(f"{text.name(path.relative_to(folder))} is corrupt and was skipped")
        return None
