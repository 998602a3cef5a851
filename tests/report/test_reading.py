"""A run's folder, read."""

from report_folders import make

from ijepa.report import reading


def test_the_length_of_a_run_in_epochs(tmp_path):
    folder = make(tmp_path / "run", steps=30, schedule={"epochs": 3.0, "max_steps": None})
    assert reading.read([folder])[0].total == 60


def test_names_tell_runs_apart(tmp_path):
    folders = [make(tmp_path / parent / "run") for parent in ("a", "b")] + [make(tmp_path / "other")]
    assert [run.name for run in reading.read(folders)] == ["a/run", "b/run", "other"]
