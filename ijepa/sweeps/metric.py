"""The metric that a sweep compares runs by: its value in a run's folder, and its better direction."""

import difflib
import math
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from ijepa.evaluation import specs
from ijepa.health import specs as health
from ijepa.run_folder import RunFolder
from ijepa.run_folder.metrics import read_metrics
from ijepa.run_folder.summary import finished_summary
from ijepa.training import specs as training
from ijepa.util.errors import ConfigError
from ijepa.util.metric_spec import MetricSpec

HEADLINE = specs.HEADLINE.name
"""The key in summary.json of the mean over label sets of the first task's main metric; the default of ``metric``."""
METRICS = "metrics"
"""The key in summary.json and metrics.json of the specs of the user's own metrics."""
TOTALS = tuple(spec.name for spec in training.TOTALS)
"""Totals in summary.json."""
TRAINING = tuple(spec.name for spec in (*training.LOSS, *training.SCHEDULE, *training.PROGRESS) if spec.name != "step")
"""Columns of metrics.csv that training writes."""
PROBES = tuple(spec.name for spec in health.PROBES)
"""Measures of health that may have a label set: ``health/LABELS/NAME``."""


def check(
    name: str | None, results: Mapping[str, MetricSpec], measures: Collection[str], needs_direction: bool = True
) -> None:
    """Checks, before training, that the run will have the metric, and that it can rank runs.

    Args:
        name: the value of ``metric``.
        results: specs of the results that the run will have, by name.
        measures: names of the measures of the run's health checks; empty: it has none.
        needs_direction: whether a metric without a better direction (a learning rate) is an error.

    Raises:
        ConfigError: when the run will not have it, or it has no better direction; suggests metrics.
    """
    wanted = result_name(name)
    promised = [result for result, spec in results.items() if spec.better]
    known = [HEADLINE, *TOTALS, *TRAINING, *promised, *(f"health/{each}" for each in measures)]
    prefix, _, measure = wanted.partition("/")
    of_label_set = measure.rpartition("/")[2]
    is_health_metric = measure in measures or (of_label_set in PROBES and of_label_set in measures)
    options = ["train/loss", *(f"health/{each}" for each in ("rankme", "gain_over_another") if each in measures)]
    suggestion = f"try {', '.join(options)}{' or a result: ' if promised else ''}{', '.join(promised)}"
    if prefix == "health" and not measures:
        raise ConfigError("metric", name, "is not measured with callbacks.health_every_steps=null")
    if not (is_health_metric if prefix == "health" else wanted in known):
        close = difflib.get_close_matches(wanted, known, n=1)
        meant = f", did you mean {close[0]}?" if close else ""
        raise ConfigError("metric", name, f"a run will not have it{meant}; {suggestion}")
    if needs_direction and specs.lookup(wanted, results).better is None:
        raise ConfigError("metric", name, f"has no better direction; {suggestion}")


def direction(name: str | None, custom: specs.Specs | None = None) -> str:
    """``maximize`` or ``minimize``, as Optuna calls it.

    Args:
        name: the value of ``metric``.
        custom: specs of the user's own metrics, by name.
    """
    return "minimize" if specs.lookup(name or HEADLINE, custom).better == "lower" else "maximize"


def results(summary: dict[str, Any]) -> dict[str, float]:
    """The headline, the results of the trained encoder and the totals in a summary, by name, those that are finite."""
    rows = summary.get("results") or {}
    first: Any = next(iter(rows.values()), {}) if isinstance(rows, dict) else {}
    trained: dict[str, Any] = first if isinstance(first, dict) else {}
    custom = specs.parse_custom_specs(summary.get(METRICS))
    values = {HEADLINE: summary.get(HEADLINE), **trained, **{name: summary.get(name) for name in TOTALS}}
    return {name: float(value) for name, value in values.items()
            if _is_number(value) and specs.lookup(name, custom).better}  # fmt: skip


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a value from JSON is finite, as a float, too: whole numbers have any number of digits there."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def value(name: str | None, folder: Path) -> float | None:
    """The metric of the run in ``folder``: a result or total of its summary, else the last value of its column."""
    values = results(finished_summary(RunFolder(folder).summary) or {})
    wanted = result_name(name)
    return values[wanted] if wanted in values else last_value(wanted, folder)


def result_name(name: str | None) -> str:
    """The name of ``metric`` among the results."""
    return (name or HEADLINE).removeprefix("val/")


def last_value(column: str, folder: Path) -> float | None:
    """The last value in a column of metrics.csv; None if there is none, or it is not finite."""
    try:
        number = float(read_metrics(RunFolder(folder).metrics).last(column) or "nan")
    except (OSError, ValueError):
        return None
    return number if math.isfinite(number) else None
