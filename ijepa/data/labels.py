"""data.labels: the classes of some or all images of a folder, from a CSV file."""

import csv
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ijepa.data.sets import UNLABELLED
from ijepa.util.errors import ConfigError
from ijepa.util.reading import read_text

FILE = "file"
"""The column of file names; every other column is a label set."""
KEY = "data.labels"
MAX_DIGITS = 1000
"""Class names of more digits are text: Python reads no whole number of more than 4,300."""


class LabelTable(NamedTuple):
    """The contents of a CSV file of labels.

    path: the file.
    sets: names of the label sets.
    lines: line number, file name, and a class name for each label set ("": none).
    """

    path: Path
    sets: list[str]
    lines: list[tuple[int, str, list[str]]]

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by label set, in the order of their numbers if all are whole numbers, else of the alphabet."""
        found = {name: {line[2][column] for line in self.lines} - {""} for column, name in enumerate(self.sets)}
        return {name: sorted(values, key=_order(values)) for name, values in found.items()}

    def labels(self, paths: Sequence[Sequence[str]]) -> list[dict[str, list[int]]]:
        """Class indices by label set of each part of the images, `UNLABELLED` for images that the file does not name.

        Args:
            paths: the image files of each part; a line names one by its path or the end of its path.

        Raises:
            ConfigError: if a line names no image, or several, or one that an earlier line names.
        """
        places = [(part, row) for part, files in enumerate(paths) for row in range(len(files))]
        matches = matching([name for _, name, _ in self.lines], [file for files in paths for file in files])
        found = [{name: [UNLABELLED] * len(files) for name in self.sets} for files in paths]
        index = {name: {value: i for i, value in enumerate(values)} for name, values in self.classes.items()}
        seen: dict[int, int] = {}
        for (number, name, values), rows in zip(self.lines, matches, strict=True):
            if len(rows) != 1:
                problem = "several images; give the folder, too" if rows else "none of the images"
                raise ConfigError(KEY, self.path, f"line {number}: {name} is the name of {problem}")
            if rows[0] in seen:
                raise ConfigError(KEY, self.path, f"line {number}: {name} is in line {seen[rows[0]]} already")
            seen[rows[0]] = number
            part, row = places[rows[0]]
            for label_set, value in zip(self.sets, values, strict=True):
                if value:
                    found[part][label_set][row] = index[label_set][value]
        return found


def read_labels(path: Path) -> LabelTable:
    """Reads a CSV file whose first line names the columns: ``file`` and one or more label sets.

    Values are separated by commas, semicolons or tabs. An empty value means that the image has no label.

    Raises:
        ConfigError: if the file is missing or malformed; it names the line.
    """
    try:
        text = read_text(path, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(KEY, path, "cannot be read: not UTF-8") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(KEY, path, f"cannot be read: {reason}") from None
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        lines = [(reader.line_num, [value.strip() for value in line]) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise ConfigError(KEY, path, f"line {reader.line_num}: {error}") from None
    header = lines[0][1] if lines else []
    sets = [name for name in header if name != FILE]
    if header.count(FILE) != 1 or not sets or len(set(sets)) < len(sets) or "" in sets:
        shown = ",".join(header) or "nothing"
        raise ConfigError(KEY, path, f"its first line should name the columns, as in file,class, not {shown}")
    for name in sets:
        if any(sign in name for sign in "./\\"):
            raise ConfigError(KEY, path, f"column {name}: its name may not contain . or /")
    column = header.index(FILE)
    rows = []
    for number, values in lines[1:]:
        if len(values) != len(header) or not values[column]:
            raise ConfigError(KEY, path, f"line {number}: should have {len(header)} values: {','.join(header)}")
        rows.append((number, values[column], values[:column] + values[column + 1 :]))
    table = LabelTable(path, sets, rows)
    for name, classes in table.classes.items():
        if len(classes) < 2:
            raise ConfigError(KEY, path, f"column {name}: needs at least two classes, not {len(classes)}")
    return table


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
