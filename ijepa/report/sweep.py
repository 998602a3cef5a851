"""Renders a sweep as one HTML page: a sortable table, a scatter plot of any two columns, parallel coordinates."""

import math
from dataclasses import dataclass
from typing import Any

from ijepa.evaluation import specs
from ijepa.report import curves, page
from ijepa.sweeps import metric, table
from ijepa.sweeps.jobs import FINISHED, Job, Sweep

SCRIPTS = ("charts.js", "sweep.js")
AXES = 4
"""Results that are axes of the parallel coordinates, at most."""


@dataclass(frozen=True)
class SweepColumn:
    """A column of the table, and an axis of the pictures.

    Attributes:
        name: of the swept key, or of the result.
        title: as shown.
        kind: ``key`` (swept), ``metric``, ``result`` or ``total``.
        is_fraction: whether values are shown in per cent.
        is_text: whether values are text, in the order of the sweep.
    """

    name: str
    title: str
    kind: str
    is_fraction: bool = False
    is_text: bool = False


def render(sweep: Sweep, title: str | None = None) -> str:
    """The HTML page of a sweep."""
    columns = _columns(sweep)
    rows = [[_value(sweep, job, column) for column in columns] for job in sweep.jobs]
    drawn = {
        "columns": [vars(column) for column in columns],
        "jobs": [{"name": job.name, "values": row} for job, row in zip(sweep.jobs, rows, strict=True)],
        "lower_is_better": sweep.direction == "minimize",
        "metric": next(number for number, column in enumerate(columns) if column.kind == "metric"),
        "axes": _axes(columns),
    }
    best = next(((job, value) for job, value in sweep.ranked() if value is not None), None)
    return page.fill(
        "sweep.html",
        data=drawn,
        scripts=SCRIPTS,
        title=title or sweep.folder.resolve().name,
        sweep=sweep,
        columns=columns,
        rows=list(zip(sweep.jobs, rows, strict=True)),
        finished=sum(job.status == FINISHED for job in sweep.jobs),
        failed=[job for job in sweep.jobs if job.error is not None],
        best=best,
        shorten=table.shorten,
        verdicts=[((job.summary or {}).get("health") or {}).get("verdict", "") for job in sweep.jobs],
    )


def _columns(sweep: Sweep) -> list[SweepColumn]:
    names = table.result_names(sweep)
    metric_name = metric.result_name(sweep.metric)
    keys = []
    for key in sweep.keys:
        is_text = any(_number(job.values.get(key, "")) is None for job in sweep.jobs)
        keys.append(SweepColumn(key, key, "key", is_text=is_text))
    results = [name for name in names if name not in (*metric.TOTALS, metric.HEADLINE, metric_name)]
    totals = [name for name in metric.TOTALS if name in names and name != metric_name]
    known = sweep.custom_specs
    return [*keys, _column(metric_name, "metric", known), *(_column(name, "result", known) for name in results),
            *(_column(name, "total", known) for name in totals)]  # fmt: skip


def _column(name: str, kind: str, known: specs.Specs) -> SweepColumn:
    spec = specs.lookup(name, known)
    return SweepColumn(name, curves.labelled(spec.title, name), kind, is_fraction=spec.is_fraction)


def _value(sweep: Sweep, job: Job, column: SweepColumn) -> Any:
    if column.kind != "key":
        return metric.value(column.name, job.folder)
    text = job.values.get(column.name, "")
    return text if column.is_text else _number(text)


def _axes(columns: list[SweepColumn]) -> list[int]:
    """Columns that are axes of the parallel coordinates: swept keys, some results, and the metric."""
    results = [number for number, column in enumerate(columns) if column.kind == "result"]
    return [*(number for number, column in enumerate(columns) if column.kind == "key"), *results[:AXES],
            *(number for number, column in enumerate(columns) if column.kind == "metric")]  # fmt: skip


def _number(text: str) -> float | None:
    """The number that a swept value is, if an axis has a place for it."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
