"""What a sweep compares runs by: a value of a run's folder, and whether more of it is better."""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ijepa.evaluation import specs
from ijepa.health import specs as health
from ijepa.run_folder import RunFolder
from ijepa.run_folder.metrics import read_metrics
from ijepa.run_folder.summary import finished_summary
from ijepa.training import specs as training
from ijepa.util.errors import ConfigError
from ijepa.util.metric_spec import MetricSpec

HEADLINE = specs.HEADLINE.name
"""The mean of the first task's results on the label sets, in summary.json; what metric=null stands for."""
METRICS = "metrics"
"""In summary.json and metrics.json: specs of metrics that `specs.lookup` does not know by name."""
TOTALS = tuple(spec.name for spec in training.TOTALS)
"""Numbers of summary.json."""
TRAINING = tuple(spec.name for spec in (*training.LOSS, *training.SCHEDULE, *training.PROGRESS) if spec.name != "step")
"""Columns of metrics.csv that training fills."""
HEALTH_METRICS = tuple(spec.name for spec in health.MEASURES)
"""Those after ``health/``; the two probes also after a label set."""
PROBES = tuple(f"/{spec.name}" for spec in health.PROBES)


def check(name: str | None, results: Mapping[str, MetricSpec], has_health: bool) -> None:
    """Refuses what a run will not have, before it trains.

    Args:
        name: ``metric``.
        results: of its tasks, by name.
        has_health: whether it measures its health.

    Raises:
        ConfigError: names what to try.
    """
    wanted = named(name)
    promised = [result for result, spec in results.items() if spec.better]
    known = [HEADLINE, *TOTALS, *TRAINING, *promised, *(f"health/{each}" for each in HEALTH_METRICS)]
    health, _, measure = wanted.partition("/")
    named_so = measure in HEALTH_METRICS or measure.endswith(PROBES)
    if (health != "health" and wanted in known) or (health == "health" and has_health and named_so):
        return
    if health == "health" and not has_health:
        raise ConfigError("metric", name, "is not measured with callbacks.health_every_steps=null")
    close = difflib.get_close_matches(wanted, known, n=1)
    meant = f", did you mean {close[0]}?" if close else ""
    choices = ", ".join(promised)
    problem = f"a run will not have it{meant}; try train/loss, health/rankme or a result: {choices}"
    raise ConfigError("metric", name, problem)


def direction(name: str | None, outside: specs.Specs | None = None) -> str:
    """Optuna's word for what is better: maximize or minimize.

    Args:
        name: ``metric``.
        outside: specs of tasks that do not come with this software.
    """
    return "minimize" if specs.lookup(name or HEADLINE, outside).better == "lower" else "maximize"


def results(found: dict[str, Any]) -> dict[str, float]:
    """The results of the run's own encoder, its totals, and its headline, by name."""
    rows = found.get("results") or {}
    own: dict[str, Any] = next(iter(rows.values()), {}) if isinstance(rows, dict) else {}
    outside = specs.described(found.get(METRICS))
    values = {HEADLINE: found.get(HEADLINE), **own, **{name: found.get(name) for name in TOTALS}}
    return {name: float(value) for name, value in values.items()
            if isinstance(value, int | float) and specs.lookup(name, outside).better}  # fmt: skip


def value(name: str | None, folder: Path) -> float | None:
    """Of the finished run in ``folder``: a result, a number of its summary, or the last of a column of metrics.csv."""
    found = results(finished_summary(RunFolder(folder).summary) or {})
    wanted = named(name)
    return found[wanted] if wanted in found else last(wanted, folder)


def named(name: str | None) -> str:
    """What ``metric`` is called among the results."""
    return (name or HEADLINE).removeprefix("val/")


def last(column: str, folder: Path) -> float | None:
    """The last value in a column of metrics.csv; None where there is none."""
    try:
        number = float(read_metrics(RunFolder(folder).metrics).last(column) or "nan")
    except (OSError, ValueError):
        return None
    return number if math.isfinite(number) else None
