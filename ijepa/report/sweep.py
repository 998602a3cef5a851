"""A sweep -> one HTML page: a sortable table, a scatter plot of any two values, parallel coordinates."""

from dataclasses import dataclass
from typing import Any

from ijepa.evaluation import specs
from ijepa.report import curves, page
from ijepa.sweeps import metric, table
from ijepa.sweeps.jobs import FINISHED, Job, Sweep

SCRIPTS = ("charts.js", "sweep.js")
AXES = 4
"""Results among the parallel coordinates, at most."""


@dataclass(frozen=True)
class Column:
    """A column of the table, and an axis of the pictures.

    Attributes:
        name: key or result.
        title: shown.
        kind: key (what was swept), metric, result or total.
        share: whether values are shown in per cent.
        words: whether values are words, in the order of the sweep.
    """

    name: str
    title: str
    kind: str
    share: bool = False
    words: bool = False


def render(sweep: Sweep, title: str | None = None) -> str:
    """The page of a sweep."""
    columns = _columns(sweep)
    rows = [[_value(sweep, job, column) for column in columns] for job in sweep.jobs]
    drawn = {
        "columns": [vars(column) for column in columns],
        "jobs": [{"name": job.name, "values": row} for job, row in zip(sweep.jobs, rows, strict=True)],
        "less": sweep.better == "minimize",
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
        brief=table.brief,
        verdicts=[((job.summary or {}).get("health") or {}).get("verdict", "") for job in sweep.jobs],
    )


def _columns(sweep: Sweep) -> list[Column]:
    found = table.names(sweep)
    chosen = metric.named(sweep.metric)
    keys = []
    for key in sweep.keys:
        words = any(_number(job.values.get(key, "")) is None for job in sweep.jobs)
        keys.append(Column(key, key, "key", words=words))
    results = [name for name in found if name not in (*metric.TOTALS, metric.HEADLINE, chosen)]
    totals = [name for name in metric.TOTALS if name in found and name != chosen]
    known = sweep.outside
    return [*keys, _column(chosen, "metric", known), *(_column(name, "result", known) for name in results),
            *(_column(name, "total", known) for name in totals)]  # fmt: skip


def _column(name: str, kind: str, known: specs.Specs) -> Column:
    spec = specs.lookup(name, known)
    return Column(name, curves.labelled(spec.title, name), kind, share=spec.is_fraction)


def _value(sweep: Sweep, job: Job, column: Column) -> Any:
    if column.kind != "key":
        return metric.value(column.name, job.folder)
    text = job.values.get(column.name, "")
    return text if column.words else _number(text)


def _axes(columns: list[Column]) -> list[int]:
    """The columns that are parallel coordinates: what was swept, the metric, and some results."""
    results = [number for number, column in enumerate(columns) if column.kind == "result"]
    return [*(number for number, column in enumerate(columns) if column.kind == "key"), *results[:AXES],
            *(number for number, column in enumerate(columns) if column.kind == "metric")]  # fmt: skip


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
