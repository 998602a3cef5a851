"""metrics.csv: one row per step."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ijepa.util.files import write_text


class MetricsCSV(Logger):
    """Appends to an existing file; metrics of the same step share a row; new columns rewrite the file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                self._rows = [row for row in reader if (row["step"] or "").isdecimal()]  # no half row of a full disk
                self._columns = list(reader.fieldnames or [])

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds ``metrics`` to the row of ``step``."""
        row = {"step": str(step), **{name: _number(value) for name, value in metrics.items()}}
        merged = bool(self._rows) and self._rows[-1]["step"] == row["step"]
        if merged:
            self._rows[-1].update(row)
        else:
            self._rows.append(row)
        added = [name for name in row if name not in self._columns]
        self._columns += added
        if merged or added:
            write_text(self.path, self._text(self._rows, header=True))
        else:
            with self.path.open("a", newline="") as file:
                file.write(self._text([row], header=False))

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drops rows after ``step``, because a run resumed from there writes them again."""
        kept = [row for row in self._rows if int(row["step"]) <= step]
        if len(kept) < len(self._rows):
            self._rows = kept
            write_text(self.path, self._text(kept, header=True))

    def log_text(self, name: str, text: str, step: int) -> None:
        """Logs a text column."""
        self.log_metrics({name: text}, step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    def _text(self, rows: list[dict[str, str]], header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return buffer.getvalue()


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int | str) else f"{value:.9g}"
