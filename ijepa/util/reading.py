"""Reads text files that may come from elsewhere: they neither take all memory or stack, nor make a command wait."""

import errno
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

MAX_YAML = 10**6
"""Characters of a configuration; those of runs have about 5,000."""
MAX_YAML_DEPTH = 50
MAX_YAML_VALUES = 20_000
"""Keys and values of a configuration, with those that aliases repeat."""
MAX_JSON = 2**25
"""Bytes of a JSON file; a run's have some thousands, and values take up to twenty times as much memory."""
MAX_JSON_DEPTH = 100
MAX_TEXT = 2**30
"""Bytes of a table or a list."""


class NotRegularError(OSError, ValueError):
    """A path is no regular file; also a ValueError, as what a file contains can be."""

    def __str__(self) -> str:
        return str(self.strerror)


def check_regular(path: str | Path) -> None:
    """Raises NotRegularError if a path is neither a regular file nor a folder: reading a FIFO may never end."""
    mode = os.stat(path).st_mode  # noqa: PTH116  # faster than Path, for millions of images
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder has an error of its own when it is opened
        raise NotRegularError(errno.EINVAL, "not a regular file", str(path))


def read_bytes(path: Path, limit: int = MAX_TEXT) -> bytes:
    """The contents of a regular file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it has more than ``limit`` bytes.
    """
    check_regular(path)
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return data


def read_text(path: Path, limit: int = MAX_TEXT, encoding: str = "utf-8", errors: str = "strict") -> str:
    r"""The contents of a regular file as text, with \n for all ends of lines.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it has more than ``limit`` bytes; UnicodeDecodeError if it has another encoding.
    """
    return io.StringIO(read_bytes(path, limit).decode(encoding, errors), newline=None).read()


def read_json(path: Path, limit: int = MAX_JSON, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is larger than ``limit`` bytes, not valid, or nested too deeply.
    """
    return parse_json(read_bytes(path, limit), object_hook)


def parse_json(text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON text; raises ValueError if it is not valid, or nested too deeply."""
    too_deep = f"nested more than {MAX_JSON_DEPTH} levels deep"
    try:
        value = json.loads(text, object_hook=object_hook)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_JSON_DEPTH):
        inner = (each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer))
        level = [each for each in inner if isinstance(each, dict | list)]
    if level:
        raise ValueError(too_deep)
    return value


def check_yaml(text: str) -> None:
    """Checks a YAML text before a parser builds its values.

    Raises:
        ValueError: if it is not valid, too long, nested too deeply, or its aliases unfold to too many values.
    """
    if len(text) > MAX_YAML:
        raise ValueError(f"has more than {MAX_YAML} characters")
    try:
        _check_events(text)
    except yaml.YAMLError as error:
        raise ValueError(yaml_problem(error)) from None


def yaml_problem(error: "yaml.YAMLError") -> str:
    """A YAML parser's error, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f", line {mark.line + 1}" if mark is not None else ""
    return f"not valid YAML{where}: {problem or str(error).splitlines()[0]}"


def _check_events(text: str) -> None:
    sizes: dict[str, int] = {}  # values below each anchor
    opened: list[tuple[str | None, int]] = []  # anchor of each collection around, and how many values came before it
    values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            values += sizes.get(event.anchor, MAX_YAML_VALUES)  # one inside its own anchor has no end
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(opened) > MAX_YAML_DEPTH:
            raise ValueError(f"nested more than {MAX_YAML_DEPTH} levels deep")
        if values > MAX_YAML_VALUES:
            raise ValueError(f"more than {MAX_YAML_VALUES} values, with those that its aliases repeat")
