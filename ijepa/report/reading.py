"""A run's folder, read: what it says of itself, and what of it could not be read."""

import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from ijepa.config.checks import saved
from ijepa.report import text
from ijepa.report.pictures import Picture, pictures
from ijepa.report.settings import differences
from ijepa.util.errors import ConfigError, UserError

KEY = "RUN_DIR"
AXES = {"step": "step", "epoch": "epoch", "images": "images", "flops": "FLOPs", "seconds": "seconds"}
"""The columns of metrics.csv that others are drawn against."""

WORDS = ("health/verdict",)
"""Columns of words; health.json has them with their evidence."""

Results = dict[str, dict[str, float | None]]
"""By whose features they are of, and metric."""
Intervals = dict[str, dict[str, tuple[float, float]]]
"""The same, of 95 %."""
T = TypeVar("T")


@dataclass(frozen=True)
class Verdict:
    """What the health panel found after a step."""

    step: int
    verdict: str
    kind: str | None
    evidence: list[str]
    remedies: list[str]


@dataclass(frozen=True)
class Evaluation:
    """What evaluate.py has written: results, their intervals, on how many images."""

    name: str
    results: Results
    intervals: Intervals
    images: int | None


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
    verdicts: list[Verdict] = field(default_factory=list)
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
        return _results((self.summary or {}).get("results"))


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
    for needed in ("config.yaml", "metrics.csv"):
        if not (whole / needed).is_file():
            raise ConfigError(KEY, text.name(folder), f"not the folder of a run: {needed} is missing")
    config = _config(whole / "config.yaml")
    changes = []
    for step, path in _resumed(whole):
        later = _config(path)
        changes.append((step, differences([config, later])))
        config = later
    metrics = _metrics(whole / "metrics.csv")
    written = datetime.fromtimestamp((whole / "metrics.csv").stat().st_mtime)
    run = RunRecord(folder, name, config, changes, metrics, written, _summary(whole / "summary.json"))
    run.verdicts = _optional(whole, Path("health.json"), run.notes, _verdicts) or []
    for path in sorted(whole.glob("evaluation/**/metrics.json")):
        inside = path.relative_to(whole)
        found = _optional(whole, inside, run.notes, _evaluation)
        if found is not None:
            run.evaluations.append(Evaluation(text.name(Path(*inside.parts[1:-1])), *found))
    run.pictures, notes = pictures(whole)
    run.notes.extend(notes)
    return run


def _config(path: Path) -> dict[Any, Any]:
    try:
        values = OmegaConf.to_container(saved(path), resolve=True)
    except UserError:
        raise
    except Exception:  # an interpolation of nothing
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not the configuration of a run; restore the file that train.py wrote")
    return values


def _resumed(folder: Path) -> list[tuple[int, Path]]:
    """The configurations of resumes that changed something lasting, in order, with the step of each."""
    found = [(re.fullmatch(r"config-(\d+)(?:-(\d+))?", path.stem), path) for path in folder.glob("config-*.yaml")]
    ordered = sorted((int(match[1]), int(match[2] or 1), path) for match, path in found if match)
    return [(step, path) for step, _, path in ordered]


def _metrics(path: Path) -> dict[str, list[float | None]]:
    """By column; a last line that is still being written is left out."""
    try:
        whole = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not the metrics of a run: it is not a text file") from None
    kept = whole[: whole.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(kept, newline=""))
    try:
        table = [row for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}") from None
    if not table or "step" not in table[0]:
        raise UserError(f"{path}: not the metrics of a run: there is no column step")
    columns: dict[str, list[float | None]] = {title: [] for title in table[0]}
    if len(columns) < len(table[0]):
        raise UserError(f"{path}: not the metrics of a run: two columns have the same name")
    for line, row in enumerate(table[1:], 2):
        if len(row) != len(table[0]):
            raise UserError(f"{path}: line {line} has {len(row)} cells, the first line {len(table[0])}")
        for title, cell in zip(table[0], row, strict=True):
            if title in WORDS:
                continue
            try:
                columns[title].append(float(cell) if cell else None)
            except ValueError:
                raise UserError(f"{path}: line {line}: {title} is not a number: {text.name(cell[:40])}") from None
    for title in WORDS:
        columns.pop(title, None)
    if any(step is None or not math.isfinite(step) for step in columns["step"]):
        raise UserError(f"{path}: a line has no step")
    return columns


def _summary(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not the summary of a run; restore the file that train.py wrote")
    return found


def _optional(folder: Path, inside: Path, notes: list[str], understood: Callable[[Any], T]) -> T | None:
    """What a JSON file tells, None where there is none; a broken one becomes a note."""
    try:
        return understood(json.loads((folder / inside).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        notes.append(f"{text.name(inside)} is corrupt and was skipped")
        return None


def _verdicts(found: Any) -> list[Verdict]:
    verdicts = []
    for item in found["verdicts"]:
        evidence, remedies = ([str(line) for line in item.get(key) or []] for key in ("evidence", "remedies"))
        kind = item.get("kind")
        named = None if kind is None else str(kind)
        verdicts.append(Verdict(int(item["step"]), str(item["verdict"]), named, evidence, remedies))
    return verdicts


def _evaluation(found: Any) -> tuple[Results, Intervals, int | None]:
    intervals = {str(who): {str(metric): (float(low), float(high)) for metric, (low, high) in values.items()}
                 for who, values in found.get("intervals", {}).items()}  # fmt: skip
    images = found.get("images", {}).get("val")
    return _results(found["results"]), intervals, images if isinstance(images, int) else None


def _results(found: Any) -> Results:
    """What is a finite number of them."""
    rows = found.items() if isinstance(found, dict) else ()
    return {str(who): {str(metric): _finite(value) for metric, value in values.items()}
            for who, values in rows if isinstance(values, dict)}  # fmt: skip


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
