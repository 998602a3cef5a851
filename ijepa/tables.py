"""Results as tables for the terminal."""

from rich.table import Table

from ijepa.config import Knn, Tasks
from ijepa.evaluation.tasks import Row, headline, key


def accuracies(rows: list[Row], tasks: Tasks, names: list[str]) -> Table:
    """Encoders side by side, in per cent: every accuracy, or with several label sets each task's headline."""
    table = Table("")
    for row in rows:
        table.add_column(row.name, justify="right")
    for name in names:
        for task in tasks.chosen():
            metrics = [f"knn{k}" for k in task.k] if isinstance(task, Knn) and len(names) == 1 else [headline(task)]
            for metric in metrics:
                results = (f"{100 * row.results[key(names, name, metric)]:.1f}" for row in rows)
                table.add_row(f"{name} {metric}" if len(names) > 1 else metric, *results)
        table.add_section()
    return table
