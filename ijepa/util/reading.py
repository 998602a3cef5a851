"""Reads text files that may come from elsewhere: they neither take all memory or stack, nor make a command wait."""

import errno
import stat
from pathlib import Path

import yaml  # type: ignore[import-untyped]

MAX_YAML = 10**6
"""Characters of a configuration; those of runs have about 5,000."""
MAX_YAML_DEPTH = 50
MAX_YAML_VALUES = 20_000
"""Keys and values of a configuration, with those that aliases repeat."""


def check_regular(path: Path) -> None:
    """Raises OSError if a path is neither a regular file nor a folder: reading a FIFO, for one, could wait for ever."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder has an error of its own when it is opened
        raise OSError(errno.EINVAL, "not a regular file", str(path))


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
