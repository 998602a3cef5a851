"""metrics.csv."""

import subprocess
import time

import preloaded
import pytest
from helpers import ROOT, TINY, command, rows

from ijepa.loggers import MetricsCSV, metrics
from ijepa.util.errors import UserError


def test_metrics_csv_is_whole_at_every_moment(tmp_path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"a": 1.5}, step=1)
    logger.log_metrics({"a": 2}, step=2)
    logger.log_metrics({"b": 0.1 + 0.2}, step=2)
    logger.log_metrics({"a": 3, "b": float("nan")}, step=3)
    expected = [("1", "1.5", ""), ("2", "2", "0.3"), ("3", "3", "nan")]
    assert [tuple(row.values()) for row in rows(tmp_path)] == expected
    again = MetricsCSV(tmp_path / "metrics.csv")
    again.log_metrics({"b": 4}, step=4)
    assert [tuple(row.values()) for row in rows(tmp_path)] == [*expected, ("4", "", "4")]


def test_a_folder_that_is_renamed_while_a_row_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    logger = MetricsCSV(folder / "metrics.csv")
    logger.log_metrics({"a": 1}, step=1)

    def append(*_):
        folder.rename(tmp_path / "elsewhere")
        raise FileNotFoundError(2, "No such file or directory", str(folder / "metrics.csv"))

    monkeypatch.setattr(metrics, "append_metrics", append)
    with pytest.raises(UserError, match=f"run_dir={folder}: was removed, renamed or replaced"):
        logger.log_metrics({"a": 2}, step=2)


def test_a_file_that_is_changed_or_removed_meanwhile_is_written_anew(tmp_path):
    file = tmp_path / "metrics.csv"
    logger = MetricsCSV(file)
    logger.log_metrics({"a": 1}, step=1)
    for number, change in enumerate((file.unlink, lambda: file.write_text("edited"), lambda: file.write_text("")), 2):
        change()
        logger.log_metrics({"a": number}, step=number)
        assert [row["a"] for row in rows(tmp_path)] == [str(value) for value in range(1, number + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["renamed", "replaced"])
def test_a_run_whose_folder_changes_ends_with_one_line(tmp_path, fault):
    folder = tmp_path / "run"
    values = [
        "data=digits",
        *TINY,
        "schedule.max_steps=100000",
        "callbacks.checkpoint_every_steps=20",
        f"run_dir={folder}",
    ]
    process = subprocess.Popen([preloaded.python(), str(ROOT / "train.py"), *values], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < until:
            time.sleep(0.1)
        folder.rename(tmp_path / "elsewhere")
        if fault == "replaced":
            folder.mkdir()
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2, error
    assert error == (
        f"error: run_dir={folder}: was removed, renamed or replaced while the run used it; resume it there\n"
    )
    result = command("train.py", f"resume={tmp_path / 'elsewhere'}", "schedule.max_steps=60", "force=true")
    assert result.returncode == 0, result.stderr
