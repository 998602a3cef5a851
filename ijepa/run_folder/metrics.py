"""metrics.csv: a row per logged step, a column per metric, empty cells where a step has no value."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ijepa.util.errors import UserError, one_line
from ijepa.util.files import write_text
from ijepa.util.reading import read_bytes

STEP = "step"
"""The column that every row has."""
WORDS = ("health/verdict",)
"""Columns of text, not numbers."""


@dataclass(frozen=True)
class MetricsTable:
    """A metrics.csv, with its cells as text.

    Attributes:
        path: of the file, for messages.
        columns: names of the columns.
        rows: the cells of each row, one per column.
        is_complete: whether the file ends with a complete row; an incomplete last row is not in ``rows``.
    """

    path: Path
    columns: list[str]
    rows: list[list[str]]
    is_complete: bool

    def numbers(self) -> dict[str, list[float | None]]:
        """All columns but `WORDS`, by name; None in empty cells.

        Raises:
            UserError: when a cell is not a number.
        """
        numbers: dict[str, list[float | None]] = {name: [] for name in self.columns if name not in WORDS}
        for line, row in enumerate(self.rows, 2):
            for name, cell in zip(self.columns, row, strict=True):
                try:
                    if name not in WORDS:
                        numbers[name].append(float(cell) if cell else None)
                except ValueError:
                    problem = f"{one_line(name)} is not a number: {one_line(cell[:40])}"
                    raise UserError(f"{self.path}: line {line}: {problem}") from None
        return numbers

    def last(self, column: str) -> str | None:
        """The newest non-empty cell of a column; None if there is none."""
        if column not in self.columns:
            return None
        index = self.columns.index(column)
        return next((row[index] for row in reversed(self.rows) if row[index]), None)


def read_metrics(path: Path) -> MetricsTable:
    """The table in ``path``, without a half-written last line (the run is still writing, or was killed).

    Raises:
        FileNotFoundError: when there is no such file.
        UserError: when it is not the metrics of a run; names the line.
    """
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not the metrics of a run: it is not a text file") from None
    except ValueError as error:  # larger than any, or no regular file
        raise UserError(f"{path}: not the metrics of a run: it is {error}") from None
    complete = text[: text.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(complete, newline=""))
    try:
        table = [row for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}") from None
    if not table or STEP not in table[0]:
        raise UserError(f"{path}: not the metrics of a run: there is no column step")
    columns, rows = table[0], table[1:]
    if len(set(columns)) < len(columns):
        raise UserError(f"{path}: not the metrics of a run: two columns have the same name")
    step = columns.index(STEP)
    for line, row in enumerate(rows, 2):
        if len(row) != len(columns):
            raise UserError(f"{path}: line {line} has {len(row)} cells, the first line {len(columns)}")
        if not row[step].isdecimal():
            raise UserError(f"{path}: line {line} has no step")
    return MetricsTable(path, columns, rows, is_complete=len(complete) == len(text))


def write_metrics(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    """Writes rows, dicts of cells by column, atomically."""
    write_text(path, _text(columns, rows, header=True))


def append_metrics(path: Path, columns: list[str], row: dict[str, str]) -> None:
    """Appends a row to a file that has these columns."""
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(_text(columns, [row], header=False))


def _text(columns: list[str], rows: list[dict[str, str]], header: bool) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
