"""Logs to metrics.csv: one row per step."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ijepa.run_folder.metrics import STEP, append_metrics, read_metrics, write_metrics
from ijepa.util.errors import UserError


class MetricsCSV(Logger):
    """Appends rows; metrics of the same step share a row, and a new column rewrites the file.

    It is written anew, too, if something else has changed or removed it.

    Args:
        path: the file.

    Raises:
        UserError: if the existing file is broken.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        self._whole = True
        self._size = self._size_now()
        self._folder: tuple[int, int] | None = None
        if path.exists():
            table = read_metrics(path)
            self._columns, self._whole = table.columns, table.is_complete
            self._rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds ``metrics`` to the row of ``step``.

        Raises:
            UserError: if the folder has been removed, renamed or replaced since the first row.
        """
        self._check_folder()
        try:
            self._log(step, {name: _cell(value) for name, value in metrics.items()})
        except FileNotFoundError:
            self._check_folder()  # it may have been renamed since the first check
            raise

    def _log(self, step: int | None, values: dict[str, str]) -> None:
        row = {STEP: str(step), **values}
        merged = bool(self._rows) and self._rows[-1][STEP] == row[STEP]
        if merged:
            self._rows[-1].update(row)
        else:
            self._rows.append(row)
        added = [name for name in row if name not in self._columns]
        self._columns += added
        if merged or added or not self._whole or self._size_now() != self._size:
            self._write()
        else:
            append_metrics(self.path, self._columns, row)
            self._size = self._size_now()

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Drops rows after ``step``; a run that resumes there writes them again."""
        rows = [row for row in self._rows if int(row[STEP]) <= step]
        if len(rows) < len(self._rows):
            self._rows = rows
            self._write()

    def log_text(self, name: str, text: str, step: int) -> None:
        """Logs a text as a column."""
        self.log_metrics({name: text}, step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: config.yaml holds them."""

    def _write(self) -> None:
        write_metrics(self.path, self._columns, self._rows)
        self._whole = True
        self._size = self._size_now()

    def _check_folder(self) -> None:
        folder = self.path.parent
        status = folder.stat() if folder.is_dir() else None
        now = None if status is None else (status.st_dev, status.st_ino)
        if self._folder is not None and now != self._folder:
            raise UserError(
                f"run_dir={folder}: was removed, renamed or replaced while the run used it; resume it there"
            )
        self._folder = now

    def _size_now(self) -> int:
        """The file's size; another one than after the last row shows that it was replaced or edited."""
        return self.path.stat().st_size if self.path.is_file() else -1


def _cell(value: Any) -> str:
    return str(value) if isinstance(value, int | str) else f"{value:.9g}"
