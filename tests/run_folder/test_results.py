"""summary.json, health.json and metrics.json of evaluations: missing, broken, and of earlier versions."""

import json
import os

import pytest

from ijepa.run_folder import RunFolder, SweepFolder
from ijepa.run_folder.config import read_config
from ijepa.run_folder.evaluation import evaluation_file, evaluation_files, read_evaluation, write_evaluation
from ijepa.run_folder.health import read_verdicts, write_verdicts
from ijepa.run_folder.metrics import read_metrics
from ijepa.run_folder.summary import finished_summary, read_summary, write_summary
from ijepa.sweeps import jobs, metric
from ijepa.util.errors import UserError
from ijepa.util.files import write_json


def test_a_summary(tmp_path):
    file = RunFolder(tmp_path).summary
    assert read_summary(file) is finished_summary(file) is None
    write_summary(file, {"steps": 3, "results": {}})
    assert read_summary(file) == finished_summary(file) == {"steps": 3, "results": {}}


NESTED = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize("contents", [b'{"steps": ', b"[]", b"\xff", b"", NESTED.encode()])
def test_a_broken_summary_is_that_of_no_finished_run(tmp_path, contents):
    file = RunFolder(tmp_path).summary
    file.write_bytes(contents)
    with pytest.raises(UserError, match=r"summary\.json: "):
        read_summary(file)
    assert finished_summary(file) is None


def test_a_summary_without_steps_is_that_of_no_finished_run(tmp_path):
    write_summary(RunFolder(tmp_path).summary, {"loss": 1})
    assert finished_summary(RunFolder(tmp_path).summary) is None


def test_verdicts(tmp_path):
    file = RunFolder(tmp_path).health
    assert read_verdicts(file) == []
    old = {"step": 1, "verdict": "healthy"}
    write_verdicts(file, [old, {**old, "kind": "early", "evidence": ["rank 3"], "remedies": ["lr"], "later": 1}], 0.5)
    first, second = read_verdicts(file)
    assert (first.step, first.verdict, first.kind, first.evidence) == (1, "healthy", None, [])
    assert (second.kind, second.evidence, second.remedies) == ("early", ["rank 3"], ["lr"])
    for broken in ('{"verdicts": [{}]}', '{"verdicts": ', "[]", '{"verdicts": [1]}', NESTED):
        file.write_text(broken)
        with pytest.raises(UserError, match=r"health\.json: not the health of a run"):
            read_verdicts(file)


def test_evaluations(tmp_path):
    run = RunFolder(tmp_path)
    file = evaluation_file(run.evaluations / "knn")
    found = {"knn20": 0.5, "rmse": float("nan")}
    write_evaluation(file, {"config": {}, "images": {"train": 2, "val": 3}, "results": {"target encoder": found},
                            "intervals": {"target encoder": {"knn20": [0.25, 0.75]}}, "details": {}})  # fmt: skip
    assert json.loads(file.read_text())["results"] == {"target encoder": {"knn20": 0.5, "rmse": None}}
    stored = read_evaluation(file)
    assert stored.results == {"target encoder": {"knn20": 0.5, "rmse": None}}
    assert stored.intervals == {"target encoder": {"knn20": (0.25, 0.75)}}
    assert stored.images == 3
    assert evaluation_files(run) == [file]
    file.write_text('{"results": {"target encoder": {"knn20": 0.5}}}')  # before there were intervals
    assert read_evaluation(file).intervals == {}
    for broken in ('{"results": [', NESTED, '{"results": {}, "details": ' + "[" * 200 + "]" * 200 + "}"):
        file.write_text(broken)
        with pytest.raises(UserError, match=r"metrics\.json: not the results of an evaluation"):
            read_evaluation(file)


@pytest.mark.parametrize("read", [read_summary, read_verdicts, read_evaluation, read_metrics, read_config])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match="fifo: not "):
        read(tmp_path / "fifo")


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        '{"command": [], "keys": ["seed"], "metric": null, "jobs": [{"folder": "a", "values": {}, "error": null}]}',
        '{"command": [], "keys": [], "metric": 1.5, "jobs": []}',
    ],
)
def test_a_sweep_s_record_that_is_none(tmp_path, text):
    SweepFolder(tmp_path).record.write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json: corrupt"):
        jobs.read(tmp_path)


@pytest.mark.parametrize("rows", [{"target encoder": 5}, {"target encoder": {"knn20": 10**400}}, [1]])
def test_results_of_other_types_are_none(tmp_path, rows):
    run = RunFolder(tmp_path)
    write_summary(run.summary, {"steps": 3, "results": rows})
    assert metric.value(None, tmp_path) is None
    file = evaluation_file(run.evaluations / "knn")
    write_json(file, {"results": rows})
    assert not any(value for values in read_evaluation(file).results.values() for value in values.values())
