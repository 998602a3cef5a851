"""Results as tables for the terminal."""

from rich.table import Table

from ijepa.config import Tasks
from ijepa.evaluation.tasks import ModelResults, promised, shown

Intervals = dict[str, dict[str, tuple[float, float]]]
"""By row's name and metric."""


def results(rows: list[ModelResults], tasks: Tasks, names: list[str], intervals: Intervals | None = None) -> Table:
    """Encoders side by side, shares in per cent: every result, or with several label sets each task's headline."""
    table = Table("")
    for row in rows:
        table.add_column(row.name, justify="right")
    specs = promised(tasks, names)
    for group in shown(tasks, rows, names):
        for metric in group:
            title = " ".join(dict.fromkeys(metric.split("/")))  # count, not count count
            table.add_row(title, *(_cell(row, metric, specs[metric].is_fraction, intervals) for row in rows))
        table.add_section()
    return table


def _cell(row: ModelResults, metric: str, is_fraction: bool, intervals: Intervals | None) -> str:
    if metric not in row.results:
        return "-"
    scale, digits = (100, 1) if is_fraction else (1, 3)
    found = (intervals or {}).get(row.name, {}).get(metric)
    between = "" if found is None else f" ({scale * found[0]:.{digits}f}-{scale * found[1]:.{digits}f})"
    return f"{scale * row.results[metric].value:.{digits}f}{between}"
