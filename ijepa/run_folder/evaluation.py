"""metrics.json: the results of an evaluation."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ijepa.run_folder.folder import RunFolder
from ijepa.util.errors import UserError
from ijepa.util.files import write_json
from ijepa.util.reading import read_json

FILE = "metrics.json"
UNFINISHED = ".unfinished-evaluation"
"""Lies in an evaluation's folder until metrics.json is written, so that its pictures are never taken for images."""

Results = dict[str, dict[str, float | None]]
"""Values by model ('target encoder', 'random init', ...) and metric; None where a value is not finite."""
Intervals = dict[str, dict[str, tuple[float, float]]]
"""95 % intervals, by model and metric."""


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation as read from metrics.json.

    Attributes:
        results: see `Results`.
        intervals: see `Intervals`.
        images: number of validation images, None if not stored.
        metrics: plain `MetricSpec`s of the user's own tasks, not validated.
    """

    results: Results
    intervals: Intervals
    images: int | None
    metrics: Any


def evaluation_file(folder: Path) -> Path:
    """metrics.json in an evaluation's folder."""
    return folder / FILE


def evaluation_files(run: RunFolder) -> list[Path]:
    """The metrics.json files of a run's evaluations, sorted by path."""
    return sorted(run.evaluations.glob(f"**/{FILE}"))


def write_evaluation(path: Path, evaluation: dict[str, Any]) -> None:
    """Writes an evaluation atomically: ``config``, ``images``, ``results``, ``intervals`` and ``details``."""
    results = {model: {metric: value if math.isfinite(value) else None for metric, value in values.items()}
               for model, values in evaluation["results"].items()}  # fmt: skip
    write_json(path, {**evaluation, "results": results})  # JSON has no NaN


def read_evaluation(path: Path) -> StoredEvaluation:
    """An evaluation that `write_evaluation` has written.

    Raises:
        UserError: when the file is corrupt.
    """
    try:
        stored = read_json(path)
        intervals = {str(model): {str(metric): (float(low), float(high)) for metric, (low, high) in values.items()}
                     for model, values in stored.get("intervals", {}).items()}  # fmt: skip
        images = stored.get("images", {}).get("val")
        results = finite_results(stored["results"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError):
        raise UserError(f"{path}: not the results of an evaluation") from None
    return StoredEvaluation(results, intervals, images if isinstance(images, int) else None, stored.get("metrics"))


def finite_results(stored: Any) -> Results:
    """Results from JSON, with None for values that are not finite numbers."""
    rows = stored.items() if isinstance(stored, dict) else ()
    return {str(model): {str(metric): _finite(value) for metric, value in values.items()}
            for model, values in rows if isinstance(values, dict)}  # fmt: skip


def _finite(value: Any) -> float | None:
    with contextlib.suppress(OverflowError):  # a whole number of very many digits
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    return None
