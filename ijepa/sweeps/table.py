"""A sweep's results as a table: for the terminal, as CSV, and as means over seeds."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ijepa.evaluation.specs import lookup
from ijepa.run_folder import SweepFolder
from ijepa.sweeps import metric
from ijepa.sweeps.jobs import FINISHED, Job, Sweep
from ijepa.util.files import write_text
from ijepa.util.metric_spec import MetricSpec
from ijepa.util.tables import TextTable

MAX_CHARACTERS = 8
"""Numbers with more characters are shortened."""
MAX_RESULTS = 4
"""Result columns in the terminal, besides the metric."""


@dataclass(frozen=True)
class SeedGroup:
    """Jobs that differ only in seed.

    Attributes:
        values: the swept values that they share, by key.
        seeds: number of jobs with results.
        verdicts: health verdict or status of each job.
        results: mean over seeds and half the width of its 95 % interval (None with one seed), by name.
    """

    values: dict[str, str]
    seeds: int
    verdicts: list[str]
    results: dict[str, tuple[float, float | None]]


def result_names(sweep: Sweep) -> list[str]:
    """Names of the results, and of the metric, that at least one job has."""
    return list(dict.fromkeys(name for job in sweep.jobs for name in sweep.values(job)))


def write(sweep: Sweep) -> None:
    """Writes ``sweep.csv``, a row per job in the order of the sweep; if seeds are swept, also ``over_seeds.csv``."""
    results = result_names(sweep)
    rows = [["job", "status", *sweep.keys, *results, "verdict", "error"]]
    for job in sweep.jobs:
        values = sweep.values(job)
        rows.append([
            job.name, job.status, *(job.values.get(key, "") for key in sweep.keys),
            *(_number(values.get(name)) for name in results), _verdict_or_status(job), job.error or "",
        ])  # fmt: skip
    _csv(SweepFolder(sweep.folder).table, rows)
    if "seed" in sweep.keys:
        groups = over_seeds(sweep)
        keys = [key for key in sweep.keys if key != "seed"]
        head = [title for name in results for title in (name, f"{name} +-")]
        rows = [[*keys, "seeds", *head]]
        for group in groups:
            intervals = [group.results.get(name, (None, None)) for name in results]
            rows.append([*(group.values.get(key, "") for key in keys), str(group.seeds),
                         *(_number(number) for interval in intervals for number in interval)])  # fmt: skip
        _csv(SweepFolder(sweep.folder).over_seeds, rows)


def over_seeds(sweep: Sweep) -> list[SeedGroup]:
    """Groups of jobs that differ only in seed: means over finished jobs, with Student's 95 % intervals."""
    by_values: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in sweep.jobs:
        by_values.setdefault(tuple((key, value) for key, value in job.values.items() if key != "seed"), []).append(job)
    groups = []
    for shared, jobs in by_values.items():
        finished = [job for job in jobs if job.status == FINISHED]
        results: dict[str, tuple[float, float | None]] = {}
        values = [sweep.values(job) for job in finished]
        for name in dict.fromkeys(name for row in values for name in row):
            numbers = np.array([row[name] for row in values if name in row])
            results[name] = (float(numbers.mean()), half_width(numbers))
        groups.append(SeedGroup(dict(shared), len(finished), [_verdict_or_status(job) for job in jobs], results))
    return groups


def terminal_table(sweep: Sweep) -> TextTable:
    """The jobs, best first, as a table for the terminal; if seeds are swept, means over seeds instead."""
    wanted = metric.result_name(sweep.metric)
    others = (metric.HEADLINE, wanted, *metric.TOTALS)
    results = _displayed_results([name for name in result_names(sweep) if name not in others])
    specs = {name: lookup(name, sweep.custom_specs) for name in (wanted, *results)}
    groups = over_seeds(sweep) if "seed" in sweep.keys else []
    seeds = 0 < len(groups) < len(sweep.jobs)
    keys = [key for key in sweep.keys if not (seeds and key == "seed")]
    title = f"{len(sweep.jobs)} jobs, the best {'mean headline' if wanted == metric.HEADLINE else wanted} first"
    table = TextTable(*_short_keys(keys), title=title + ("; means over seeds with 95 % intervals" if seeds else ""))
    for name in [*(["seeds"] if seeds else []), wanted, *results, "verdict"]:
        table.add_column(name, justify="right")
    if seeds:
        sign = -1 if sweep.direction == "maximize" else 1
        groups.sort(key=lambda group: sign * group.results.get(wanted, (sign * math.inf, 0))[0])
        for group in groups:
            cells = [_interval(spec, group.results.get(name)) for name, spec in specs.items()]
            verdicts = ", ".join(sorted(set(group.verdicts)))
            table.add_row(*(shorten(group.values.get(key, "")) for key in keys), str(group.seeds), *cells, verdicts)
        return table
    for job, value in sweep.ranked():
        numbers = sweep.values(job) | ({} if value is None else {wanted: value})
        cells = [_cell(spec, numbers.get(name)) for name, spec in specs.items()]
        table.add_row(*(shorten(job.values.get(key, "")) for key in keys), *cells, _verdict_or_status(job))
    return table


def _verdict_or_status(job: Job) -> str:
    """The health verdict of a finished job; the status of others."""
    summary = job.summary
    return job.status if summary is None or job.error else str((summary.get("health") or {}).get("verdict", ""))


def _short_keys(keys: list[str]) -> list[str]:
    """The last part of each key, or the whole key if that is ambiguous."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def shorten(value: str) -> str:
    """A swept value; numbers of more than `MAX_CHARACTERS` characters with four digits."""
    try:
        return f"{float(value):.4g}" if len(value) > MAX_CHARACTERS else value
    except ValueError:
        return value


def _displayed_results(results: list[str]) -> list[str]:
    """Up to `MAX_RESULTS` results: with several label sets, those of the first task's metric."""
    kinds = [name.rpartition("/")[2] for name in results]
    same = [name for name, kind in zip(results, kinds, strict=True) if kind == kinds[0]]
    return same if 1 < len(same) <= MAX_RESULTS else results[:MAX_RESULTS]


def half_width(numbers: np.ndarray) -> float | None:
    """Half the width of Student's 95 % interval of the mean of ``numbers`` [n]; None if n < 2."""
    if len(numbers) < 2:
        return None
    from scipy.special import stdtrit  # here, for a quick --help; scipy.stats would take a second

    quantile = float(stdtrit(len(numbers) - 1, 0.975))  # of Student's t
    return float(quantile * numbers.std(ddof=1) / math.sqrt(len(numbers)))


def _cell(spec: MetricSpec, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if spec.is_fraction else f"{value:.4g}"


def _interval(spec: MetricSpec, interval: tuple[float, float | None] | None) -> str:
    if interval is None:
        return "-"
    mean, half = interval
    text = _cell(spec, mean)
    return text if half is None else f"{text} ±{100 * half:.1f}" if spec.is_fraction else f"{text} ±{half:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _csv(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
