"""Results of several runs in one table: a row per metric, a column per run and kind of features."""

from dataclasses import dataclass

from ijepa.evaluation.specs import Specs, lookup, split
from ijepa.report import curves, text
from ijepa.report.reading import RunRecord
from ijepa.run_folder.evaluation import Intervals, Results
from ijepa.util.metric_spec import MetricSpec

PREFERRED = ("linear", "logistic", "attentive", "finetune")
"""What stands for a run, before k-NN."""
HEADLINES = 4


@dataclass(frozen=True)
class Column:
    """Whose results: of which features, and of which run, None where all runs have the same."""

    subject: str
    kind: int
    run: int | None


@dataclass(frozen=True)
class Cell:
    """A result as it is shown; its place and its interval's, in per cent of the scale, where it has one."""

    value: str
    interval: str = ""
    best: bool = False
    place: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Table:
    """Results.

    Attributes:
        title: what they are.
        about: a line more.
        columns: see there.
        rows: label set, metric and cells.
    """

    title: str
    about: str
    columns: list[Column]
    rows: list[tuple[str, str, list[Cell]]]

    @property
    def placed(self) -> bool:
        """Whether any of it has a place on the scale from 0 to 100 %."""
        return any(cell.place is not None for _, _, cells in self.rows for cell in cells)


def tables(runs: list[RunRecord]) -> list[Table]:
    """What the runs ended with, then a table for each evaluation of a name."""
    found, known = [], curves.outside(runs)
    ends = {number: run.results for number, run in enumerate(runs) if run.results}
    if ends:
        found.append(_table("At the end of training", "on validation images", ends, {}, len(runs), known))
    for name in dict.fromkeys(evaluation.name for run in runs for evaluation in run.evaluations):
        results, intervals, images = {}, {}, []
        for number, run in enumerate(runs):
            for evaluation in run.evaluations:
                if evaluation.name == name:
                    results[number], intervals[number] = evaluation.results, evaluation.intervals
                    images.append(evaluation.images)
        counts = sorted({count for count in images if count is not None})
        about = f"on {' or '.join(map(text.number, counts))} validation images, " if counts else ""
        found.append(_table(f"evaluation/{name}", f"{about}with 95 % intervals", results, intervals, len(runs), known))
    return [table for table in found if table.rows]


def _table(
    title: str,
    about: str,
    results: dict[int, Results],
    intervals: dict[int, Intervals],
    runs: int,
    known: Specs,
) -> Table:
    subjects = list(dict.fromkeys(subject for found in results.values() for subject in found))
    columns = []
    for kind, subject in enumerate(subjects):
        having = {number: found[subject] for number, found in results.items() if subject in found}
        same = kind > 0 and len(having) == runs and all(row == having[0] for row in having.values())
        columns += [Column(subject, kind, None)] if same else [Column(subject, kind, number) for number in having]
    metrics = list(dict.fromkeys(metric for found in results.values() for row in found.values() for metric in row))
    sets = list(dict.fromkeys(split(metric)[0] for metric in metrics))
    metrics.sort(key=lambda metric: sets.index(split(metric)[0]))
    rows = []
    for metric in metrics:
        spec = lookup(metric, known)
        values, between = [], []
        for column in columns:
            number = next(iter(results)) if column.run is None else column.run
            values.append(results[number].get(column.subject, {}).get(metric))
            between.append(intervals.get(number, {}).get(column.subject, {}).get(metric))
        rows.append((split(metric)[0], spec.title, _cells(spec, values, between)))
    return Table(title, about, columns, rows)


def _cells(spec: MetricSpec, values: list[float | None], between: list[tuple[float, float] | None]) -> list[Cell]:
    share = spec.is_fraction
    known = [value for value in values if value is not None]
    best = None
    if len(known) > 1 and spec.better:
        best = min(known) if spec.better == "lower" else max(known)
    cells = []
    for value, interval in zip(values, between, strict=True):
        if value is None:
            cells.append(Cell("\u2013"))
            continue
        shown = f"{100 * value:.1f}" if share else text.number(value)
        ends = (
            "" if interval is None else "\u2013".join(f"{100 * x:.1f}" if share else text.number(x) for x in interval)
        )
        placed = [_place(x) for x in (value, *(interval or ()))] if share else []
        cells.append(Cell(shown, ends, value == best, *placed))
    return cells


def _place(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 2)


def headlines(run: RunRecord) -> list[tuple[str, float, str]]:
    """Few results that stand for a run: title, value, and what random init or another baseline has."""
    rows = list(run.results.items())
    if rows:
        values = {metric: value for metric, value in rows[0][1].items() if value is not None}
    else:
        last = {column.removeprefix("val/"): run.last(column) for column in run.metrics if column.startswith("val/")}
        values = {metric: value for metric, value in last.items() if value is not None}
    known = curves.outside([run])
    shares = [metric for metric in values if lookup(metric, known).is_fraction]
    names = list(dict.fromkeys(split(metric)[1] for metric in shares))
    task = run.config.get("task")
    knn = (task.get("knn") or {}).get("headline") if isinstance(task, dict) else None
    wanted = [name for name in (*PREFERRED, f"knn{knn}") if name in names] or names
    chosen = [metric for name in wanted for metric in shares if split(metric)[1] == name]
    found = []
    for metric in chosen[:HEADLINES]:
        beside = [f"{subject} {100 * value:.1f}" for subject, row in rows[1:]
                  if (value := row.get(metric)) is not None]  # fmt: skip
        title = curves.labelled(lookup(metric, known).title, metric)
        found.append((title, values[metric], "; ".join(beside)))
    return found
