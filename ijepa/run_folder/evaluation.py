"""metrics.json: what an evaluation came to."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ijepa.run_folder.folder import RunFolder
from ijepa.util.errors import UserError
from ijepa.util.files import write_json

FILE = "metrics.json"

Results = dict[str, dict[str, float | None]]
"""By whose features they are of, and metric; None where a metric is no finite number."""
Intervals = dict[str, dict[str, tuple[float, float]]]
"""The same, of 95 %."""


@dataclass(frozen=True)
class StoredEvaluation:
    """Results, their intervals, on how many images, and what describes metrics that no name does."""

    results: Results
    intervals: Intervals
    images: int | None
    metrics: Any


def evaluation_file(folder: Path) -> Path:
    """The file in an evaluation's folder."""
    return folder / FILE


def evaluation_files(run: RunFolder) -> list[Path]:
    """Those of a run, in the order of their folders' names."""
    return sorted(run.evaluations.glob(f"**/{FILE}"))


def write_evaluation(path: Path, evaluation: dict[str, Any]) -> None:
    """Writes ``config``, ``images``, ``results``, ``intervals`` and ``details``, atomically."""
    results = {who: {metric: value if math.isfinite(value) else None for metric, value in values.items()}
               for who, values in evaluation["results"].items()}  # fmt: skip
    write_json(path, {**evaluation, "results": results})  # JSON knows no NaN


def read_evaluation(path: Path) -> StoredEvaluation:
    """What `write_evaluation` has written.

    Raises:
        UserError: when it is broken.
    """
    try:
        found = json.loads(path.read_bytes())
        intervals = {str(who): {str(metric): (float(low), float(high)) for metric, (low, high) in values.items()}
                     for who, values in found.get("intervals", {}).items()}  # fmt: skip
        images = found.get("images", {}).get("val")
        results = finite_results(found["results"])
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        raise UserError(f"{path}: not the results of an evaluation") from None
    return StoredEvaluation(results, intervals, images if isinstance(images, int) else None, found.get("metrics"))


def finite_results(found: Any) -> Results:
    """Results as they are stored, None in the place of what is no finite number."""
    rows = found.items() if isinstance(found, dict) else ()
    return {str(who): {str(metric): _finite(value) for metric, value in values.items()}
            for who, values in rows if isinstance(values, dict)}  # fmt: skip


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
