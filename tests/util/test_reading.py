"""Files from elsewhere, read with limits."""

import os

import pytest

from ijepa.util.reading import check_regular, check_yaml, parse_json, read_bytes, read_json, read_text


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


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 101 + "]" * 101, "{", b"\xff", "1" * 5000])
def test_json_that_is_not_read(text):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


def test_json_that_is_read(tmp_path):
    for text in ("1", "null", "{}", "[" * 100 + "]" * 100):
        parse_json(text)
    (tmp_path / "a.json").write_text('{"a": [1, {"b": null}]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, {"b": None}]}
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        read_json(tmp_path / "a.json", limit=10)


def test_contents_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_bytes(tmp_path / "a") == b"\xef\xbb\xbfa\r\nb"
    assert read_text(tmp_path / "a", encoding="utf-8-sig") == "a\nb"
