"""The columns of metrics.csv as charts: which belong together, what they are called, and how they are drawn."""

import math
from dataclasses import dataclass, replace
from typing import Any

from ijepa.evaluation.specs import Specs, described, lookup, split
from ijepa.health.specs import GROUPS
from ijepa.report.reading import AXES, RunRecord
from ijepa.sweeps.metric import METRICS
from ijepa.training.specs import LOSS, SCHEDULE
from ijepa.util.metric_spec import MetricSpec

POINTS = 1200
"""Of a curve; of longer ones the least and the greatest value of each stretch are drawn."""


@dataclass(frozen=True)
class Chart:
    """A column, drawn.

    Attributes:
        column: of metrics.csv.
        title: in the field's words.
        about: a few words more.
        unit: as shown; "%" where values are fractions.
        log: whether the axis is logarithmic to begin with.
    """

    column: str
    title: str
    about: str = ""
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class ChartGroup:
    """Charts that belong together."""

    title: str
    charts: list[Chart]
    minor: bool = False


def groups(runs: list[RunRecord]) -> tuple[list[ChartGroup], list[ChartGroup]]:
    """Of health, and of training, those that some run has logged."""
    columns = list(dict.fromkeys(
        column for run in runs for column, values in run.metrics.items()
        if column not in AXES and any(value is not None for value in values)
    ))  # fmt: skip
    left, known = dict.fromkeys(columns), outside(runs)

    def take(title: str, wanted: list[str]) -> ChartGroup:
        return ChartGroup(title, [chart(column, known) for column in wanted if left.pop(column, True) is None])

    health = []
    for title, measures in GROUPS.items():
        names = [spec.name for spec in measures]
        of_sets = [column for column in left if column.startswith("health/") and split(column)[1] in names]
        health.append(take(title, [*(f"health/{name}" for name in names), *of_sets]))
    health.append(take("Further measures", [column for column in left if column.startswith("health/")]))
    parts = [column for column in left if column.startswith("train/")]
    training = [take("Loss", [*(spec.name for spec in LOSS), *parts])]
    results = [column for column in left if column.startswith("val/") and lookup(column, known).better]
    for label_set in dict.fromkeys(split(column)[0] for column in results):
        title = "Validation" + (f": {label_set}" if label_set else "")
        training.append(take(title, [column for column in results if split(column)[0] == label_set]))
    training.append(take("Schedule and speed", [spec.name for spec in SCHEDULE]))
    further = take("Further columns", list(left))
    training.append(replace(further, minor=True))
    return [group for group in health if group.charts], [group for group in training if group.charts]


def chart(column: str, known: Specs | None = None) -> Chart:
    """How a column is drawn; ``known``: specs of tasks that do not come with this software."""
    spec = lookup(column, known)
    if column.startswith("val/"):  # those that count are in a group of their label set
        setting = spec.better is None
        return Chart(column, spec.title, split(column)[0] if setting else spec.about, spec.unit, log=setting)
    return Chart(column, labelled(spec.title, column), spec.about, spec.unit)


def labelled(title: str, column: str) -> str:
    """A title with the label set of the column or result, where its name has one."""
    label_set, _ = split(column)
    return f"{title}, {label_set}" if label_set and not column.startswith("train/") else title


def outside(runs: list[RunRecord]) -> dict[str, MetricSpec]:
    """The metrics of tasks that do not come with this software, as the runs and their evaluations describe them."""
    found = [(run.summary or {}).get(METRICS) for run in runs]
    return described(*found, *(evaluation.metrics for run in runs for evaluation in run.evaluations))


def data(run: RunRecord, charts: list[Chart]) -> dict[str, Any]:
    """What the page draws of a run: axes at the rows that are drawn, and by column the rows and values of its curve."""
    drawn = {item.column: _thinned(run.metrics.get(item.column, [])) for item in charts}
    rows = sorted({row for places in drawn.values() for row in places})
    place = {row: index for index, row in enumerate(rows)}
    series = {}
    for column, places in drawn.items():
        if places:
            values = [_rounded(run.metrics[column][row]) for row in places]
            series[column] = {"at": [place[row] for row in places], "values": values}
    axes = {axis: [_rounded(run.metrics[axis][row]) for row in rows] for axis in AXES if axis in run.metrics}
    verdicts = [{"step": verdict.step, "verdict": verdict.verdict, "kind": verdict.kind} for verdict in run.verdicts]
    return {"name": run.name, "steps": run.steps, "axes": axes, "series": series, "verdicts": verdicts}


def _thinned(values: list[float | None]) -> list[int]:
    """The rows of a curve that are drawn; those without a finite value stay."""
    rows = [row for row, value in enumerate(values) if value is not None]
    if len(rows) <= POINTS:
        return rows
    stretch = math.ceil(2 * len(rows) / POINTS)
    kept = {rows[0], rows[-1]}
    for start in range(0, len(rows), stretch):
        part = rows[start : start + stretch]
        finite = [row for row in part if math.isfinite(values[row] or 0)]
        kept.update(next(([row] for row in part if row not in finite), []))
        if finite:
            kept |= {min(finite, key=lambda row: values[row] or 0), max(finite, key=lambda row: values[row] or 0)}
    return sorted(kept)


def _rounded(value: float | None) -> float | None:
    """Seven digits, or a whole number; None for what JSON has no word for."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e10 else float(f"{value:.7g}")
