"""Results as tables for the terminal."""

from ijepa.config import Tasks
from ijepa.evaluation.tasks import ModelResults, result_specs, table_metrics
from ijepa.util.tables import TextTable

Intervals = dict[str, dict[str, tuple[float, float]]]
"""95 % intervals, by the model's name and `result_key`."""


def results_table(
    rows: list[ModelResults], tasks: Tasks, names: list[str], intervals: Intervals | None = None
) -> TextTable:
    """A column per model, fractions in per cent; with several label sets, fewer metrics per task."""
    table = TextTable("")
    for row in rows:
        table.add_column(row.name, justify="right")
    specs = result_specs(tasks, names)
    for group in table_metrics(tasks, rows, names):
        for metric in group:
            title = " ".join(dict.fromkeys(metric.split("/")))  # "count", not "count count"
            table.add_row(title, *(_cell(row, metric, specs[metric].is_fraction, intervals) for row in rows))
        table.add_section()
    return table


def _cell(row: ModelResults, metric: str, is_fraction: bool, intervals: Intervals | None) -> str:
    if metric not in row.results:
        return "-"
    scale, digits = (100, 1) if is_fraction else (1, 3)
    interval = (intervals or {}).get(row.name, {}).get(metric)
    suffix = "" if interval is None else f" ({scale * interval[0]:.{digits}f}-{scale * interval[1]:.{digits}f})"
    return f"{scale * row.results[metric].value:.{digits}f}{suffix}"
