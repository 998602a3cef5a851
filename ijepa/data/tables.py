"""Tables that list images: CSV and TSV files with a line of column names, Parquet files, and plain lists of files."""

import csv
import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ijepa.config.custom import first_line
from ijepa.util.errors import ConfigError
from ijepa.util.reading import read_text

FILE_COLUMNS = ("file", "path", "file_name", "filename", "image")
"""Names of the column of files; the first of them that a table has."""
PARQUET, PLAIN = (".parquet", ".pq"), (".txt", ".lst")
"""Suffixes of Parquet files and of plain lists; all others have lines of separated values."""
PANDAS_INDEX = "__index_level_"
"""Begins the names of columns that pandas adds."""
MAX_DIGITS = 1000
"""Class names of more digits are text: Python reads no whole number of more than 4,300."""


class Table(NamedTuple):
    """The contents of a table.

    columns: names of all columns but that of the files.
    rows: number of the line, file, and the values of `columns` ("": none).
    """

    columns: list[str]
    rows: list[tuple[int, str, list[str]]]


def read_table(path: Path, key: str, plain: bool = False) -> Table:
    """Reads a table. Values are separated by commas, semicolons or tabs, whichever the first line has most of.

    Args:
        path: the file.
        key: of the configuration, named in errors.
        plain: a text file (`PLAIN`) has a path in each line, without names of columns.

    Raises:
        ConfigError: if the file is missing or malformed; it names the line.
    """
    if path.suffix.lower() in PARQUET:
        header, lines = _parquet(path, key)
    else:
        header, lines = _separated(path, key, plain and path.suffix.lower() in PLAIN)
    name = next((name for name in FILE_COLUMNS if name in header), FILE_COLUMNS[0])
    if header.count(name) != 1 or len(set(header)) < len(header) or "" in header:
        shown = ",".join(header) or "nothing"
        raise ConfigError(key, path, f"its first line should name the columns, as in file,class, not {shown}")
    column, rows = header.index(name), []
    for number, values in lines:
        if len(values) != len(header) or not values[column]:
            raise ConfigError(key, path, f"line {number}: should have {len(header)} values: {','.join(header)}")
        rows.append((number, values[column], values[:column] + values[column + 1 :]))
    return Table(header[:column] + header[column + 1 :], rows)


def check_label_sets(names: Iterable[str], path: Path, key: str) -> None:
    """Raises ConfigError if a label set could not be told from a path in the names of metrics."""
    for name in names:
        if any(sign in name for sign in "./\\"):
            raise ConfigError(key, path, f"column {name}: its name may not contain . or /")


def class_names(values: Iterable[str]) -> list[str]:
    """The classes among ``values``, in the order of their numbers if all are whole numbers, else of the alphabet."""
    found = set(values) - {""}
    return sorted(found, key=_order(found))


def matching(listed: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """The rows of ``names`` that each of ``listed`` names: by the whole path, or by its end."""
    wanted = [Path(name).parts for name in listed]
    lengths = {len(parts) for parts in wanted}
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        parts = Path(name).parts
        for length in lengths:
            if length <= len(parts):
                rows[parts[-length:]].append(row)
    return [rows.get(parts, []) for parts in wanted]


def _order(values: set[str]) -> Callable[[str], tuple[int, str]]:
    numbers = all(value.isdecimal() and len(value) <= MAX_DIGITS for value in values)
    return lambda value: (int(value) if numbers else 0, value)


def _separated(path: Path, key: str, plain: bool) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, and numbers and values of the lines that are not empty."""
    try:
        text = read_text(path, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(key, path, "cannot be read: not UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(key, path, f"cannot be read: {reason}") from None
    if plain:
        files = [(number, [line.strip()]) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [FILE_COLUMNS[0]], files
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, [value.strip() for value in line]) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise ConfigError(key, path, f"line {reader.line_num}: {error}") from None
    return (lines[0][1], lines[1:]) if lines else ([], [])


def _parquet(path: Path, key: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, and numbers and values of the rows, as text; empty where there is none."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(key, path, "needs pyarrow; try pip install 'ijepa[parquet]', or a CSV file")
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if not name.startswith(PANDAS_INDEX)]
        for name in names:
            kind = file.schema_arrow.field(name).type
            if pyarrow.types.is_nested(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
                raise ConfigError(key, path, f"column {name} holds {kind}, not text or numbers; leave it out")
        content = file.read(columns=names)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(key, path, f"cannot be read: {first_line(error)}") from None
    columns = [[_as_text(value) for value in column.to_pylist()] for column in content.columns]
    return list(content.column_names), [(row, list(values)) for row, values in enumerate(zip(*columns, strict=True), 1)]


def _as_text(value: Any) -> str:
    """Whole numbers without a point, also if missing ones have made them floats; nothing for missing ones."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
