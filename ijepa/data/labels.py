"""data.labels: the classes of some or all images of a folder, from a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ijepa.data.sets import UNLABELLED
from ijepa.data.tables import FILE_COLUMNS, check_label_sets, class_names, matching, read_table
from ijepa.util.errors import ConfigError

KEY = "data.labels"


class LabelTable(NamedTuple):
    """The contents of a file of labels.

    path: the file.
    sets: names of the label sets.
    lines: line number, file name, and a class name for each label set ("": none).
    """

    path: Path
    sets: list[str]
    lines: list[tuple[int, str, list[str]]]

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by label set; see `class_names`."""
        return {name: class_names(line[2][column] for line in self.lines) for column, name in enumerate(self.sets)}

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
    """Reads a table with a column of files and one or more label sets; see `read_table`.

    An empty value means that the image has no label.

    Raises:
        ConfigError: if the file is missing or malformed; it names the line.
    """
    sets, rows = read_table(path, KEY)
    if not sets:
        problem = f"its first line should name the columns, as in file,class, not {FILE_COLUMNS[0]}"
        raise ConfigError(KEY, path, problem)
    check_label_sets(sets, path, KEY)
    table = LabelTable(path, sets, rows)
    for name, classes in table.classes.items():
        if len(classes) < 2:
            raise ConfigError(KEY, path, f"column {name}: needs at least two classes, not {len(classes)}")
    return table
