"""metrics.csv: broken, half written, and written on."""

import pytest
from helpers import rows

from ijepa.loggers import MetricsCSV
from ijepa.run_folder.metrics import read_metrics
from ijepa.util.errors import UserError


def read(tmp_path, text):
    file = tmp_path / "metrics.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_metrics(file)


def test_numbers_words_and_empty_cells(tmp_path):
    table = read(tmp_path, "step,train/loss,health/verdict\n1,0.5,\n\n2,,healthy\n3,inf,\n")
    assert table.is_complete
    assert table.numbers() == {"step": [1, 2, 3], "train/loss": [0.5, None, float("inf")]}
    assert table.last("train/loss") == "inf"
    assert table.last("health/verdict") == "healthy"
    assert table.last("val/knn20") is None


@pytest.mark.parametrize("rest", ["2", "2,0.25", "\n,", b"\0" * 100])
def test_a_half_written_last_line_is_left_out(tmp_path, rest):
    """Also where its cells look like a row's."""
    whole = b"step,train/loss\n1,0.5\n"
    table = read(tmp_path, whole + (rest if isinstance(rest, bytes) else rest.encode()))
    assert (table.rows, table.is_complete) == ([["1", "0.5"]], False)


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        ("", "there is no column step"),
        (b"\x89PNG\r\n\x00\xff\n", "it is not a text file"),
        ("loss\n1\n", "there is no column step"),
        ("step,step\n1,2\n", "two columns have the same name"),
        ("step,loss\n1,2\n2\n3,4\n", "line 3 has 1 cells, the first line 2"),
        ("step,loss\n,2\n", "line 2 has no step"),
        ("step,loss\nnan,2\n", "line 2 has no step"),
        ("step,loss\n1,two\n", "line 2: loss is not a number: two"),
        ('step,loss\n1,"two\nlines"\n', r"loss is not a number: two\\nlines"),
    ],
)
def test_what_is_broken_is_named_in_one_line(tmp_path, contents, fault):
    with pytest.raises(UserError, match=fault) as raised:
        read(tmp_path, contents).numbers()
    assert str(tmp_path / "metrics.csv") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_run_writes_on_after_half_a_row(tmp_path):
    """The next row must not end up on the line of the half one."""
    read(tmp_path, "step,train/loss\n1,0.5\n2,0.25\n1")
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.cut(2)
    logger.log_metrics({"train/loss": 0.125}, step=3)
    logger.log_metrics({"train/loss": 0.0625}, step=4)
    expected = [("1", "0.5"), ("2", "0.25"), ("3", "0.125"), ("4", "0.0625")]
    assert [tuple(row.values()) for row in rows(tmp_path)] == expected
