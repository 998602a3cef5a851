"""A sweep's table: for the terminal, as CSV, and over seeds."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from scipy import stats

from ijepa.evaluation.specs import lookup
from ijepa.run_folder import SweepFolder
from ijepa.sweeps import metric
from ijepa.sweeps.jobs import FINISHED, Job, Sweep
from ijepa.util.files import write_text
from ijepa.util.metric_spec import MetricSpec

BRIEF = 8
"""Characters of a number that is shown as it is."""
SHOWN = 4
"""Results that the terminal shows."""


@dataclass(frozen=True)
class SeedGroup:
    """Jobs that differ by seed alone.

    Attributes:
        values: what they share of what was swept.
        seeds: how many of them have results.
        verdicts: on their health, or what has become of them.
        results: mean and half the width of its 95 % interval over seeds (None of one seed), by name.
    """

    values: dict[str, str]
    seeds: int
    verdicts: list[str]
    results: dict[str, tuple[float, float | None]]


def names(sweep: Sweep) -> list[str]:
    """The results that some job has, and the metric."""
    return list(dict.fromkeys(name for job in sweep.jobs for name in sweep.values(job)))


def write(sweep: Sweep) -> None:
    """``sweep.csv`` in its folder, a row for each job in the order of the sweep; with seeds also ``over_seeds.csv``."""
    results = names(sweep)
    rows = [["job", "status", *sweep.keys, *results, "verdict", "error"]]
    for job in sweep.jobs:
        values = sweep.values(job)
        rows.append([job.name, job.status, *(job.values.get(key, "") for key in sweep.keys),
                     *(_number(values.get(name)) for name in results), _told(job), job.error or ""])  # fmt: skip
    _csv(SweepFolder(sweep.folder).table, rows)
    if "seed" in sweep.keys:
        groups = over_seeds(sweep)
        keys = [key for key in sweep.keys if key != "seed"]
        head = [title for name in results for title in (name, f"{name} +-")]
        rows = [[*keys, "seeds", *head]]
        for group in groups:
            ends = [group.results.get(name, (None, None)) for name in results]
            rows.append([*(group.values.get(key, "") for key in keys), str(group.seeds),
                         *(_number(end) for pair in ends for end in pair)])  # fmt: skip
        _csv(SweepFolder(sweep.folder).over_seeds, rows)


def over_seeds(sweep: Sweep) -> list[SeedGroup]:
    """Means over seeds, with Student's 95 % intervals, of the finished jobs that share all else."""
    alike: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in sweep.jobs:
        alike.setdefault(tuple((key, value) for key, value in job.values.items() if key != "seed"), []).append(job)
    groups = []
    for shared, jobs in alike.items():
        finished = [job for job in jobs if job.status == FINISHED]
        found: dict[str, tuple[float, float | None]] = {}
        values = [sweep.values(job) for job in finished]
        for name in dict.fromkeys(name for row in values for name in row):
            numbers = np.array([row[name] for row in values if name in row])
            found[name] = (float(numbers.mean()), half_width(numbers))
        groups.append(SeedGroup(dict(shared), len(finished), [_told(job) for job in jobs], found))
    return groups


def shown(sweep: Sweep) -> Table:
    """Its jobs, the best first, or with seeds their means, as a table for the terminal."""
    wanted = metric.named(sweep.metric)
    results = _first([name for name in names(sweep) if name not in (metric.HEADLINE, wanted, *metric.TOTALS)])
    specs = {name: lookup(name, sweep.outside) for name in (wanted, *results)}
    groups = over_seeds(sweep) if "seed" in sweep.keys else []
    seeds = 0 < len(groups) < len(sweep.jobs)
    keys = [key for key in sweep.keys if not (seeds and key == "seed")]
    title = f"{len(sweep.jobs)} jobs, the best {'mean headline' if wanted == metric.HEADLINE else wanted} first"
    table = Table(*_short(keys), title=title + ("; means over seeds with 95 % intervals" if seeds else ""))
    for name in [*(["seeds"] if seeds else []), wanted, *results, "verdict"]:
        table.add_column(name, justify="right")
    if seeds:
        sign = -1 if sweep.better == "maximize" else 1
        groups.sort(key=lambda group: sign * group.results.get(wanted, (sign * math.inf, 0))[0])
        for group in groups:
            cells = [_interval(spec, group.results.get(name)) for name, spec in specs.items()]
            told = ", ".join(sorted(set(group.verdicts)))
            table.add_row(*(brief(group.values.get(key, "")) for key in keys), str(group.seeds), *cells, told)
        return table
    for job, value in sweep.ranked():
        numbers = sweep.values(job) | ({} if value is None else {wanted: value})
        cells = [_cell(spec, numbers.get(name)) for name, spec in specs.items()]
        table.add_row(*(brief(job.values.get(key, "")) for key in keys), *cells, _told(job))
    return table


def _told(job: Job) -> str:
    """The verdict on a job's health, or what has become of it."""
    found = job.summary
    return job.status if found is None or job.error else str((found.get("health") or {}).get("verdict", ""))


def _short(keys: list[str]) -> list[str]:
    """The last part of each key, where that tells it from the others."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def brief(value: str) -> str:
    """A value as typed; a number of many digits with four of them."""
    try:
        return f"{float(value):.4g}" if len(value) > BRIEF else value
    except ValueError:
        return value


def _first(results: list[str]) -> list[str]:
    """As many as a terminal has room for: with several label sets those of the first task's metric."""
    kinds = [name.rpartition("/")[2] for name in results]
    same = [name for name, kind in zip(results, kinds, strict=True) if kind == kinds[0]]
    return same if 1 < len(same) <= SHOWN else results[:SHOWN]


def half_width(numbers: np.ndarray) -> float | None:
    """Half the width of Student's 95 % interval of their mean; None of fewer than two."""
    if len(numbers) < 2:
        return None
    quantile = stats.t.ppf(0.975, len(numbers) - 1)
    return float(quantile * numbers.std(ddof=1) / math.sqrt(len(numbers)))


def _cell(spec: MetricSpec, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if spec.is_fraction else f"{value:.4g}"


def _interval(spec: MetricSpec, found: tuple[float, float | None] | None) -> str:
    if found is None:
        return "-"
    mean, half = found
    text = _cell(spec, mean)
    return text if half is None else f"{text} ±{100 * half:.1f}" if spec.is_fraction else f"{text} ±{half:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _csv(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
