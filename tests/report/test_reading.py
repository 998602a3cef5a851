"""A run's folder, read."""

import math

import pytest
from report_folders import make

from ijepa.report import reading


def test_the_length_of_a_run_in_epochs(tmp_path):
    folder = make(tmp_path / "run", steps=30, schedule={"epochs": 3.0, "max_steps": None})
    assert reading.read([folder])[0].total == 60


def test_names_tell_runs_apart(tmp_path):
    folders = [make(tmp_path / parent / "run") for parent in ("a", "b")] + [make(tmp_path / "other")]
    assert [run.name for run in reading.read(folders)] == ["a/run", "b/run", "other"]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e308, "many"])
@pytest.mark.parametrize("key", ["epochs", "max_steps"])
def test_a_length_that_is_no_number_of_steps_is_unknown(tmp_path, key, value):
    schedule = {"epochs": 3.0, "max_steps": None, key: value}
    assert reading.read([make(tmp_path / "run", steps=30, schedule=schedule)])[0].total is None
