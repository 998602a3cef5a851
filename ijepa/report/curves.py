"""The columns of metrics.csv as charts: their groups, titles, scales and points."""

import math
from dataclasses import dataclass, replace
from typing import Any

from ijepa.evaluation.specs import Specs, lookup, parse_custom_specs, split
from ijepa.health.specs import GROUPS
from ijepa.report.reading import AXES, RunRecord
from ijepa.sweeps.metric import METRICS
from ijepa.training.specs import LOSS, SCHEDULE
from ijepa.util.metric_spec import MetricSpec

POINTS = 1200
"""Points of a curve, at most; longer curves are reduced to the minimum and maximum of each interval."""


@dataclass(frozen=True)
class Chart:
    """The chart of a column.

    Attributes:
        column: of metrics.csv.
        title: shown above the chart.
        about: a short explanation.
        unit: as shown; ``%`` for fractions.
        log: whether the y axis is logarithmic at first.
    """

    column: str
    title: str
    about: str = ""
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class ChartGroup:
    """Charts under a common title; a ``minor`` group is collapsed at first."""

    title: str
    charts: list[Chart]
    minor: bool = False


def groups(runs: list[RunRecord]) -> tuple[list[ChartGroup], list[ChartGroup]]:
    """The groups of health charts and of training charts, with the columns that at least one run has logged."""
    columns = list(dict.fromkeys(
        column for run in runs for column, values in run.metrics.items()
        if column not in AXES and any(value is not None for value in values)
    ))  # fmt: skip
    remaining, known = dict.fromkeys(columns), custom_specs(runs)

    def take(title: str, wanted: list[str]) -> ChartGroup:
        return ChartGroup(title, [chart(column, known) for column in wanted if remaining.pop(column, True) is None])

    health = []
    for title, measures in GROUPS.items():
        names = [spec.name for spec in measures]
        with_label_set = [column for column in remaining if column.startswith("health/") and split(column)[1] in names]
        health.append(take(title, [*(f"health/{name}" for name in names), *with_label_set]))
    health.append(take("Further measures", [column for column in remaining if column.startswith("health/")]))
    terms = [column for column in remaining if column.startswith("train/")]
    training = [take("Loss", [*(spec.name for spec in LOSS), *terms])]
    results = [column for column in remaining if column.startswith("val/") and lookup(column, known).better]
    for label_set in dict.fromkeys(split(column)[0] for column in results):
        title = "Validation" + (f": {label_set}" if label_set else "")
        training.append(take(title, [column for column in results if split(column)[0] == label_set]))
    training.append(take("Schedule and speed", [spec.name for spec in SCHEDULE]))
    further = take("Further columns", list(remaining))
    training.append(replace(further, minor=True))
    return [group for group in health if group.charts], [group for group in training if group.charts]


def chart(column: str, known: Specs | None = None) -> Chart:
    """The chart of a column; ``known``: specs of the user's own metrics, by name."""
    spec = lookup(column, known)
    if column.startswith("val/"):  # results have a group for each label set; settings do not
        setting = spec.better is None
        return Chart(column, spec.title, split(column)[0] if setting else spec.about, spec.unit, log=setting)
    return Chart(column, labelled(spec.title, column), spec.about, spec.unit)


def labelled(title: str, column: str) -> str:
    """``title`` with the label set of a column or result, if its name has one."""
    label_set, _ = split(column)
    return f"{title}, {label_set}" if label_set and not column.startswith("train/") else title


def custom_specs(runs: list[RunRecord]) -> dict[str, MetricSpec]:
    """Specs of the metrics of the user's own tasks, from the runs' summaries and evaluations, by name."""
    summaries = [(run.summary or {}).get(METRICS) for run in runs]
    return parse_custom_specs(*summaries, *(evaluation.metrics for run in runs for evaluation in run.evaluations))


def data(run: RunRecord, charts: list[Chart]) -> dict[str, Any]:
    """The data of a run for the page's script: the rows that some curve draws, and each curve's rows and values."""
    drawn = {item.column: _thinned(run.metrics.get(item.column, [])) for item in charts}
    rows = sorted({row for curve_rows in drawn.values() for row in curve_rows})
    index_of = {row: index for index, row in enumerate(rows)}
    series = {}
    for column, curve_rows in drawn.items():
        if curve_rows:
            values = [_rounded(run.metrics[column][row]) for row in curve_rows]
            series[column] = {"at": [index_of[row] for row in curve_rows], "values": values}
    axes = {axis: [_rounded(run.metrics[axis][row]) for row in rows] for axis in AXES if axis in run.metrics}
    verdicts = [{"step": verdict.step, "verdict": verdict.verdict, "kind": verdict.kind} for verdict in run.verdicts]
    return {"name": run.name, "steps": run.steps, "axes": axes, "series": series, "verdicts": verdicts}


def _thinned(values: list[float | None]) -> list[int]:
    """The rows of a curve that are drawn, at most about `POINTS`; includes rows whose value is not finite."""
    rows = [row for row, value in enumerate(values) if value is not None]
    if len(rows) <= POINTS:
        return rows
    length = math.ceil(2 * len(rows) / POINTS)
    drawn = {rows[0], rows[-1]}
    for start in range(0, len(rows), length):
        part = rows[start : start + length]
        finite = [row for row in part if math.isfinite(values[row] or 0)]
        drawn.update(next(([row] for row in part if row not in finite), []))
        if finite:
            drawn |= {min(finite, key=lambda row: values[row] or 0), max(finite, key=lambda row: values[row] or 0)}
    return sorted(drawn)


def _rounded(value: float | None) -> float | None:
    """Rounded to seven digits, or an integer; None for values that JSON cannot represent."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e10 else float(f"{value:.7g}")
