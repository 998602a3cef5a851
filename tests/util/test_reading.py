"""Files from elsewhere, read with limits."""

import os

import pytest

from ijepa.util.reading import check_regular, check_yaml


def bomb(levels):
    """YAML whose aliases repeat nine values, nine times at each level."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*lines, *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels + 1))])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (bomb(8), "more than 20000 values"),
        ("a: &a [*a]", "more than 20000 values"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(60)), "nested more than 50 levels"),
        ("a: " + "x" * 1_000_001, "has more than 1000000 characters"),
        ("a: [\n", "not valid YAML, line 2: "),
        ("a: *b", "more than 20000 values"),
    ],
)
def test_yaml_that_is_not_read(text, problem):
    with pytest.raises(ValueError, match=problem):
        check_yaml(text)


@pytest.mark.parametrize(
    "text", ["", "text", bomb(2), "a: " + "[" * 49 + "]" * 49, "a: &m [1]\nb: *m\nc: {<<: {d: *m}}"]
)
def test_yaml_that_is_read(text):
    check_yaml(text)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    check_regular(tmp_path / "link")
    for name, problem in (("fifo", "not a regular file"), ("missing", "No such file")):
        with pytest.raises(OSError, match=problem):
            check_regular(tmp_path / name)
