"""Tables that are written row by row, and resumed."""

import csv
import subprocess
import sys

import pytest
from helpers import ROOT

from ijepa.util.rows import RowFile, UnfinishedError

COLUMNS = {"file": False, "probability": True}
ROWS = [["a,b.png", 0.25], ["line\nbreak\r.png", ""], ["\udcff.png", 1 / 3]]


def read(path):
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_a_stopped_table_is_resumed_after_its_last_record(tmp_path):
    path = tmp_path / "out" / "table.csv"
    table = RowFile(path, COLUMNS, {"of": 1})
    table.add(ROWS[:1])
    table.save()
    table.add([["lost.png", 1.0]])
    table._file.close()  # written, but not recorded: half a row, for example
    assert not path.exists()
    resumed = RowFile(path, COLUMNS, {"of": 1})
    assert resumed.rows == 1
    resumed.add(ROWS[1:])
    resumed.finish()
    assert read(path) == [["file", "probability"], ["a,b.png", "0.25"], ["line\nbreak\r.png", ""],
                          ["\udcff.png", "0.333333"]]  # fmt: skip
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("change", ["identity", "columns", "truncated", "damaged", "nested", "gone"])
def test_what_cannot_be_resumed_begins_anew(tmp_path, change):
    path = tmp_path / "table.csv"
    table = RowFile(path, COLUMNS, {"of": 1})
    table.add(ROWS)
    table.save()
    if change == "truncated":
        table.unfinished.write_bytes(b"file")
    if change == "damaged":
        table.record.write_text("{")
    if change == "nested":
        table.record.write_text("[" * 200_000)
    if change == "gone":
        table.unfinished.unlink()
    columns = {**COLUMNS, "error": False} if change == "columns" else COLUMNS
    table._file.close()
    identity = {"of": 2 if change == "identity" else 1}
    if change in ("identity", "columns"):
        with pytest.raises(UnfinishedError, match="a stopped command has left 3 rows of other images"):
            RowFile(path, columns, identity)
        assert table.unfinished.stat().st_size > 50  # nothing is lost
    anew = RowFile(path, columns, identity, overwrite=True)
    assert anew.rows == 0
    anew.finish()
    assert read(path) == [list(columns)]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = RowFile(tmp_path / "table.parquet", COLUMNS, {})
    table.add(ROWS)
    table.finish()
    found = parquet.read_table(tmp_path / "table.parquet").to_pydict()
    assert found == {"file": ["a,b.png", "line\nbreak\r.png", "\ufffd.png"], "probability": [0.25, None, 0.333333]}
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]


@pytest.mark.integration
def test_two_processes_do_not_write_one_table(tmp_path):
    first = RowFile(tmp_path / "table.csv", COLUMNS, {})
    script = (
        "from pathlib import Path; from ijepa.util.rows import RowFile\n"
        f"RowFile(Path({str(tmp_path / 'table.csv')!r}), {COLUMNS!r}, {{}}, overwrite=True)"
    )
    other = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "another process is writing it; wait, or choose another name" in other.stderr
    first.add(ROWS)
    first.finish()
    assert len(read(tmp_path / "table.csv")) == 4


def test_a_table_that_was_begun_anew_is_resumed(tmp_path):
    """After longer rows of another command."""
    old = RowFile(tmp_path / "table.csv", COLUMNS, {"of": 1})
    old.add(ROWS * 100)
    old.save()
    old._file.close()
    anew = RowFile(tmp_path / "table.csv", COLUMNS, {"of": 2}, overwrite=True)
    anew.add(ROWS[:2])
    anew.save()
    anew.add([["lost.png", 1.0]] * 500)
    anew._file.close()
    resumed = RowFile(tmp_path / "table.csv", COLUMNS, {"of": 2})
    assert resumed.rows == 2
    resumed.add(ROWS[2:])
    resumed.finish()
    assert [line[0] for line in read(tmp_path / "table.csv")[1:]] == [row[0] for row in ROWS]
