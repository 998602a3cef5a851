"""Results as tables for the terminal."""

from rich.table import Table

from ijepa.config import Knn, Logistic
from ijepa.evaluation.tasks import Row


def accuracies(rows: list[Row], task: Knn | Logistic) -> Table:
    """Results side by side; accuracies in per cent."""
    names = [f"knn{k}" for k in task.k] if isinstance(task, Knn) else ["logistic"]
    table = Table("")
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.name, *(f"{100 * row.results[name]:.1f}" for name in names))
    return table
