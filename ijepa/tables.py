"""Results as tables for the terminal."""

from rich.table import Table

from ijepa.config import Tasks
from ijepa.evaluation.tasks import Row, key, metrics

Intervals = dict[str, dict[str, tuple[float, float]]]
"""By row's name and metric."""


def accuracies(rows: list[Row], tasks: Tasks, names: list[str], intervals: Intervals | None = None) -> Table:
    """Encoders side by side, in per cent: every accuracy, or with several label sets each task's headline."""
    table = Table("")
    for row in rows:
        table.add_column(row.name, justify="right")
    several = len(names) > 1
    for name in names:
        for metric in (metric for task in tasks.measured().values() for metric in metrics(task, several)):
            cells = (_cell(row, key(names, name, metric), intervals) for row in rows)
            table.add_row(f"{name} {metric}" if several else metric, *cells)
        table.add_section()
    return table


def _cell(row: Row, metric: str, intervals: Intervals | None) -> str:
    found = (intervals or {}).get(row.name, {}).get(metric)
    between = "" if found is None else f" ({100 * found[0]:.1f}-{100 * found[1]:.1f})"
    return f"{100 * row.values[metric]:.1f}{between}"
