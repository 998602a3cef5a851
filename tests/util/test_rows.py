"""Tables that are written row by row, and resumed."""

import csv

import pytest

from ijepa.util.rows import RowFile

COLUMNS = {"file": False, "probability": True}
ROWS = [["a,b.png", 0.25], ["line\nbreak.png", ""], ["\udcff.png", 1 / 3]]


def read(path):
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_a_stopped_table_is_resumed_after_its_last_record(tmp_path):
    path = tmp_path / "out" / "table.csv"
    table = RowFile(path, COLUMNS, {"of": 1})
    table.add(ROWS[:1])
    table.save()
    table.add([["lost.png", 1.0]])
    table._file.flush()  # written, but not recorded: half a row, for example
    assert not path.exists()
    resumed = RowFile(path, COLUMNS, {"of": 1})
    assert (resumed.rows, resumed.discarded) == (1, 0)
    resumed.add(ROWS[1:])
    resumed.finish()
    assert read(path) == [["file", "probability"], ["a,b.png", "0.25"], ["line\nbreak.png", ""],
                          ["\udcff.png", "0.333333"]]  # fmt: skip
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("change", ["identity", "columns", "truncated", "damaged", "gone"])
def test_what_cannot_be_resumed_begins_anew(tmp_path, change):
    path = tmp_path / "table.csv"
    table = RowFile(path, COLUMNS, {"of": 1})
    table.add(ROWS)
    table.save()
    if change == "truncated":
        table.unfinished.write_bytes(b"file")
    if change == "damaged":
        table.record.write_text("{")
    if change == "gone":
        table.unfinished.unlink()
    columns = {**COLUMNS, "error": False} if change == "columns" else COLUMNS
    anew = RowFile(path, columns, {"of": 2 if change == "identity" else 1})
    assert anew.rows == 0
    assert anew.discarded == (0 if change in ("damaged", "gone") else 3)
    anew.finish()
    assert read(path) == [list(columns)]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = RowFile(tmp_path / "table.parquet", COLUMNS, {})
    table.add(ROWS)
    table.finish()
    found = parquet.read_table(tmp_path / "table.parquet").to_pydict()
    assert found == {"file": ["a,b.png", "line\nbreak.png", "\ufffd.png"], "probability": [0.25, None, 0.333333]}
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]
