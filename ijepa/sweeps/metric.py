"""What a sweep compares runs by: a value of a run's folder, and whether more of it is better."""

import csv
import difflib
import json
import math
from pathlib import Path
from typing import Any

from ijepa.util.errors import ConfigError

LESS_IS_BETTER = ("loss", "depth_rmse", "gradient_norm", "seconds", "flops", "images", "alpha_req")
"""Names, or what follows the last slash of them."""
HEADLINE = "headline"
"""The mean of the first task's results on the label sets, in summary.json; what metric=null stands for."""
SETTINGS = ("logistic_l2",)
"""Results that are chosen settings: no name to compare by."""
TOTALS = ("loss", "images", "flops", "seconds")
"""Numbers of summary.json."""


TRAINING = ("train/loss", "train/distance", "train/variance", "train/covariance", "images_per_second", "epoch", "lr",
            "weight_decay", "momentum")  # fmt: skip
"""Columns of metrics.csv that training fills."""
SPREADS = ("std", "std_across", "share", "norm", "relative")
HEALTH_METRICS = (*SPREADS, *(f"predictions_{name}" for name in SPREADS), "cosine", "correlation", "rankme",
                  "effective_rank", "alpha_req", "lidar", "knn", "linear", "encoder_distance",
                  "gradient_norm")  # fmt: skip
"""Those after ``health/``; the two probes also after a label set."""


def check(name: str | None, promised: list[str], has_health: bool) -> None:
    """Refuses what a run will not have, before it trains.

    Args:
        name: ``metric``.
        promised: the names of its results.
        has_health: whether it measures its health.

    Raises:
        ConfigError: names what would do.
    """
    wanted = named(name)
    known = [HEADLINE, *TOTALS, *TRAINING, *promised, *(f"health/{each}" for each in HEALTH_METRICS)]
    health, _, measure = wanted.partition("/")
    named_so = measure in HEALTH_METRICS or measure.endswith(("/knn", "/linear"))
    if (health != "health" and wanted in known) or (health == "health" and has_health and named_so):
        return
    if health == "health" and not has_health:
        raise ConfigError("metric", name, "is not measured with callbacks.health_every_steps=null")
    close = difflib.get_close_matches(wanted, known, n=1)
    meant = f", did you mean {close[0]}?" if close else ""
    choices = ", ".join(promised)
    problem = f"a run will not have it{meant}; try train/loss, health/rankme or a result: {choices}"
    raise ConfigError("metric", name, problem)


def direction(name: str | None) -> str:
    """Optuna's word for what is better: maximize or minimize."""
    kind, _, last = (name or HEADLINE).rpartition("/")
    return "minimize" if last in LESS_IS_BETTER or kind == "train" else "maximize"


def summary(folder: Path) -> dict[str, Any] | None:
    """What a finished run has written; None where there is none."""
    try:
        found = json.loads((folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "steps" in found else None


def results(found: dict[str, Any]) -> dict[str, float]:
    """The results of the run's own encoder, its totals, and its headline, by name."""
    rows = found.get("results") or {}
    own: dict[str, Any] = next(iter(rows.values()), {}) if isinstance(rows, dict) else {}
    values = {HEADLINE: found.get(HEADLINE), **own, **{name: found.get(name) for name in TOTALS}}
    return {name: float(value) for name, value in values.items()
            if isinstance(value, int | float) and not name.endswith(SETTINGS)}  # fmt: skip


def value(name: str | None, folder: Path) -> float | None:
    """Of the finished run in ``folder``: a result, a number of its summary, or the last of a column of metrics.csv."""
    found = results(summary(folder) or {})
    wanted = named(name)
    return found[wanted] if wanted in found else last(wanted, folder)


def named(name: str | None) -> str:
    """What ``metric`` is called among the results."""
    return (name or HEADLINE).removeprefix("val/")


def last(column: str, folder: Path) -> float | None:
    """The last value in a column of metrics.csv; None where there is none."""
    try:
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
            cells = [row.get(column) for row in csv.DictReader(file)]
        number = float(next(cell for cell in reversed(cells) if cell))
    except (OSError, ValueError, StopIteration):
        return None
    return number if math.isfinite(number) else None
