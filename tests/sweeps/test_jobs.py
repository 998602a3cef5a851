"""A sweep's record."""

import json

import pytest
from report_folders import drawn, make, report

from ijepa.run_folder import RunFolder, SweepFolder
from ijepa.run_folder.summary import finished_summary
from ijepa.sweeps import jobs


def sweep_of(folder, accuracies, values):
    """A sweep over seeds, with a finished run for each accuracy."""
    for name, accuracy in accuracies.items():
        summary = RunFolder(make(folder / name)).summary
        written = finished_summary(summary)
        written["results"]["target encoder"]["knn20"] = accuracy
        summary.write_text(json.dumps(written | {"headline": accuracy}))
    listed = [{"folder": name, "values": {"seed": value}, "error": None}
              for name, value in zip(accuracies, values, strict=True)]  # fmt: skip
    SweepFolder(folder).record.write_text(
        json.dumps({"command": ["-m"], "keys": ["seed"], "metric": None, "jobs": listed})
    )
    return folder


def test_a_record_that_is_broken(tmp_path):
    assert jobs.read(tmp_path) is None
    SweepFolder(tmp_path).record.write_text('{"jobs": [{}]}')
    with pytest.raises(ValueError, match="corrupt; run the sweep again"):
        jobs.read(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_result_that_is_not_finite_is_no_result(tmp_path, value):
    """NaN has no order: any job could become the best."""
    folder = sweep_of(tmp_path / "sweep", {"a": value, "b": 0.5, "c": value, "d": 0.25}, "0123")
    ranked = [(job.name, value) for job, value in jobs.read(folder).ranked()]
    assert ranked == [("b", 0.5), ("d", 0.25), ("a", None), ("c", None)]
    listed = drawn(report(folder, tmp_path / "report.html"))
    assert [job["values"][1] for job in listed["jobs"]] == [None, 0.5, None, 0.25]


@pytest.mark.parametrize("value", ["nan", "-inf", "1e999"])
def test_a_swept_value_that_has_no_place_on_an_axis(tmp_path, value):
    folder = sweep_of(tmp_path / "sweep", {"a": 0.5, "b": 0.25}, ["1", value])
    listed = drawn(report(folder, tmp_path / "report.html"))
    assert listed["columns"][0]["is_text"]
    assert [job["values"][0] for job in listed["jobs"]] == ["1", value]
