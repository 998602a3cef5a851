"""A CSV file that is written row by row: a command that was stopped resumes it where it stood."""

import contextlib
import csv
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ijepa.util.files import replacing, write_text
from ijepa.util.reading import read_json

SAVED_EVERY = 1.0
"""Seconds between records of how far the file is."""
CHUNK = 65_536
"""Rows of a row group in Parquet."""

Value = str | float
Row = Sequence[Value]


class UnfinishedError(Exception):
    """An unfinished file stands in the way."""


class RowFile:
    """Rows go to a hidden file beside ``path``, which takes its name when it is complete.

    ``rows``: how many there are.

    Args:
        path: of the table; ending in .parquet, it is converted at the end.
        columns: their names, and whether their values are numbers; else they are strings. An empty string: no value.
        identity: what the rows are computed from; an unfinished file of another identity is not resumed.
        overwrite: replace an unfinished file of another identity.

    Raises:
        UnfinishedError: if there is an unfinished file of another identity, or another process is writing it.
    """

    def __init__(self, path: Path, columns: dict[str, bool], identity: dict[str, Any], overwrite: bool = False) -> None:
        self.path = path
        self.columns = columns
        self.identity = {"columns": list(columns), **identity}
        self.unfinished = self.unfinished_of(path)
        self.record = path.with_name(f".{path.name}.json")
        self._saved = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.unfinished.open("a+b")  # writes at the end, wherever that is
        try:
            _lock(self._file)
            self.rows, self._size, others = self._found()
            if others and not overwrite:
                raise UnfinishedError(
                    f"a stopped command has left {others} rows of other images, other weights or other options; "
                    "add overwrite=true to begin anew, or choose another name"
                )
        except UnfinishedError:
            self._file.close()
            raise
        self._file.truncate(self._size)
        if not self._size:
            self.record.unlink(missing_ok=True)
            header = _line(columns)
            self._file.write(header)
            self._size = len(header)

    @staticmethod
    def unfinished_of(path: Path) -> Path:
        """The hidden file in which the table at ``path`` grows."""
        return path.with_name(f".{path.name}.unfinished")

    def add(self, rows: Iterable[Row]) -> None:
        """Appends rows, all of them or none."""
        lines = [_line(row) for row in rows]
        self._file.write(b"".join(lines))
        self.rows, self._size = self.rows + len(lines), self._size + sum(map(len, lines))
        if time.monotonic() - self._saved >= SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Records how many rows there are, so that a command can resume after them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        values = {"identity": self.identity, "rows": self.rows, "bytes": self._size}
        write_text(self.record, json.dumps(values))
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Gives the file its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self.path.suffix == ".parquet":
            with replacing(self.path) as temporary:
                _to_parquet(self.unfinished, temporary, self.columns)
            self.unfinished.unlink()
        else:
            self.unfinished.replace(self.path)
        self.record.unlink(missing_ok=True)

    def _found(self) -> tuple[int, int, int]:
        """Rows and bytes of an unfinished file with the same identity, and rows of one with another."""
        try:
            values = read_json(self.record)
            same, rows, size = values["identity"] == self.identity, int(values["rows"]), int(values["bytes"])
            return (rows, size, 0) if same and self.unfinished.stat().st_size >= size else (0, 0, rows)
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0, 0


def _lock(file: IO[bytes]) -> None:
    """Locks a file against other processes, as long as it is open; raises UnfinishedError if one has locked it.

    A lock of this process alone: data loader workers do not inherit it, so it ends with the command, even if killed.
    """
    with contextlib.suppress(ImportError):  # no locks on this system
        import fcntl

        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UnfinishedError("another process is writing it; wait, or choose another name") from None
        except OSError:  # no locks on this file system
            pass


def _line(row: Iterable[Value]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(f"{v:.6g}" if isinstance(v, float) else v for v in row)
    return text.getvalue().encode("utf-8", errors="surrogateescape")


def _to_parquet(source: Path, path: Path, columns: dict[str, bool]) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {name: pyarrow.float64() if number else pyarrow.string() for name, number in columns.items()}
    schema = pyarrow.schema([(name.encode(errors="replace").decode(), kind) for name, kind in types.items()])
    opened = source.open(encoding="utf-8", errors="replace", newline="")
    with opened as file, parquet.ParquetWriter(path, schema) as out:
        rows = csv.reader(file)
        next(rows)  # the columns' names
        for chunk in _chunks(rows):
            values = [
                [(float(value) if number else value) if value else None for value in column]
                for number, column in zip(columns.values(), zip(*chunk, strict=True), strict=True)
            ]
            out.write_table(pyarrow.table(values, schema=schema))


def _chunks(rows: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    chunk: list[list[str]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
