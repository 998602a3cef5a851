"""Results of several runs in one table: a row per metric, a column per run and model."""

from dataclasses import dataclass

from ijepa.evaluation.specs import Specs, lookup, split
from ijepa.report import curves, text
from ijepa.report.reading import RunRecord
from ijepa.run_folder.evaluation import Intervals, Results
from ijepa.util.metric_spec import MetricSpec

PREFERRED = ("linear", "logistic", "attentive", "finetune")
"""Metrics that are preferred to k-NN as a run's headlines."""
HEADLINES = 4
"""Headline results of a run, at most."""


@dataclass(frozen=True)
class ResultColumn:
    """A column of results: the model, its number among the table's models, and the run's number (None: all runs)."""

    model: str
    kind: int
    run: int | None


@dataclass(frozen=True)
class Cell:
    """A result as shown; for fractions, also its position and its interval's ends on the scale, in per cent."""

    value: str
    interval: str = ""
    best: bool = False
    position: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ResultTable:
    """A table of results.

    Attributes:
        title: shown above the table.
        about: the images and intervals, in words.
        columns: see `ResultColumn`.
        rows: label set, title of the metric, and cells.
    """

    title: str
    about: str
    columns: list[ResultColumn]
    rows: list[tuple[str, str, list[Cell]]]

    @property
    def has_scale(self) -> bool:
        """Whether a cell has a position on the scale from 0 to 100 %."""
        return any(cell.position is not None for _, _, cells in self.rows for cell in cells)


def tables(runs: list[RunRecord]) -> list[ResultTable]:
    """A table of the results at the end of training, then one for each name of an evaluation."""
    result_tables, known = [], curves.custom_specs(runs)
    ends = {number: run.results for number, run in enumerate(runs) if run.results}
    if ends:
        result_tables.append(_table("At the end of training", "on validation images", ends, {}, len(runs), known))
    for name in dict.fromkeys(evaluation.name for run in runs for evaluation in run.evaluations):
        results, intervals, images = {}, {}, []
        for number, run in enumerate(runs):
            for evaluation in run.evaluations:
                if evaluation.name == name:
                    results[number], intervals[number] = evaluation.results, evaluation.intervals
                    images.append(evaluation.images)
        counts = sorted({count for count in images if count is not None})
        about = f"on {' or '.join(map(text.number, counts))} validation images, " if counts else ""
        result_tables.append(
            _table(f"evaluation/{name}", f"{about}with 95 % intervals", results, intervals, len(runs), known)
        )
    return [table for table in result_tables if table.rows]


def _table(
    title: str,
    about: str,
    results: dict[int, Results],
    intervals: dict[int, Intervals],
    runs: int,
    known: Specs,
) -> ResultTable:
    models = list(dict.fromkeys(model for rows_of_run in results.values() for model in rows_of_run))
    columns = []
    for kind, model in enumerate(models):
        rows_by_run = {number: rows_of_run[model] for number, rows_of_run in results.items() if model in rows_of_run}
        same = kind > 0 and len(rows_by_run) == runs and all(row == rows_by_run[0] for row in rows_by_run.values())
        columns += [ResultColumn(model, kind, number) for number in ([None] if same else rows_by_run)]
    metrics = list(
        dict.fromkeys(metric for rows_of_run in results.values() for row in rows_of_run.values() for metric in row)
    )
    sets = list(dict.fromkeys(split(metric)[0] for metric in metrics))
    metrics.sort(key=lambda metric: sets.index(split(metric)[0]))
    rows = []
    for metric in metrics:
        spec = lookup(metric, known)
        values, intervals_in_row = [], []
        for column in columns:
            number = next(iter(results)) if column.run is None else column.run
            values.append(results[number].get(column.model, {}).get(metric))
            intervals_in_row.append(intervals.get(number, {}).get(column.model, {}).get(metric))
        rows.append((split(metric)[0], spec.title, _cells(spec, values, intervals_in_row)))
    return ResultTable(title, about, columns, rows)


def _cells(spec: MetricSpec, values: list[float | None], intervals: list[tuple[float, float] | None]) -> list[Cell]:
    known = [value for value in values if value is not None]
    best = None
    if len(known) > 1 and spec.better:
        best = min(known) if spec.better == "lower" else max(known)
    cells = []
    for value, interval in zip(values, intervals, strict=True):
        if value is None:
            cells.append(Cell("\u2013"))
            continue
        ends = "\u2013".join(_shown(end, spec) for end in interval or ())
        positions = [_position(fraction) for fraction in (value, *(interval or ()))] if spec.is_fraction else []
        cells.append(Cell(_shown(value, spec), ends, value == best, *positions))
    return cells


def _shown(value: float, spec: MetricSpec) -> str:
    return f"{100 * value:.1f}" if spec.is_fraction else text.number(value)


def _position(fraction: float) -> float:
    return round(100 * min(max(fraction, 0.0), 1.0), 2)


def headlines(run: RunRecord) -> list[tuple[str, float, str]]:
    """Up to `HEADLINES` results of a run: title, value, and the baselines' values in words."""
    rows = list(run.results.items())
    if rows:
        values = {metric: value for metric, value in rows[0][1].items() if value is not None}
    else:
        last = {column.removeprefix("val/"): run.last(column) for column in run.metrics if column.startswith("val/")}
        values = {metric: value for metric, value in last.items() if value is not None}
    known = curves.custom_specs([run])
    fractions = [metric for metric in values if lookup(metric, known).is_fraction]
    names = list(dict.fromkeys(split(metric)[1] for metric in fractions))
    task = run.config.get("task")
    knn = (task.get("knn") or {}).get("headline") if isinstance(task, dict) else None
    wanted = [name for name in (*PREFERRED, f"knn{knn}") if name in names] or names
    chosen = [metric for name in wanted for metric in fractions if split(metric)[1] == name]
    titled = []
    for metric in chosen[:HEADLINES]:
        baselines = [f"{model} {100 * value:.1f}" for model, row in rows[1:]
                  if (value := row.get(metric)) is not None]  # fmt: skip
        title = curves.labelled(lookup(metric, known).title, metric)
        titled.append((title, values[metric], "; ".join(baselines)))
    return titled
