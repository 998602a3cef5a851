"""task=paper: which columns, which of the paper's figures; and the whole command."""

import json

import pytest

from ijepa.evaluation import paper
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.tasks import ModelResults


def row(name, **results):
    return ModelResults(name, {metric.replace("__", "/"): MetricValue(value) for metric, value in results.items()})


def test_columns_are_what_was_measured_beside_the_paper_s_own():
    rows = [
        row("target encoder", linear=0.5, lowshot_finetune_1pct=0.25, finetune=0.75),
        row("raw pixels", linear=0.125),
    ]
    shown = paper.columns(rows, ["class"], "imagenet")
    assert [column.title for column in shown] == ["linear", "1 %, fine-tuned", "fine-tuned"]
    intervals = {"target encoder": {"linear": (0.48, 0.53)}, "raw pixels": {}}
    lines = paper.lines(rows, shown, intervals, figures=True)
    assert lines[:2] == [["target encoder", "50.0 +-2.5", "25.0", "75.0"], ["raw pixels", "12.5", "", ""]]
    figures = {line[0]: line[1:] for line in lines[2:]}
    assert figures["I-JEPA H/14 (paper, ImageNet)"] == ["79.3", "73.3", ""]
    assert figures["I-JEPA H/16 at 448 (paper, ImageNet)"] == ["81.1", "77.3", "87.1"]
    assert figures["MAE H/14 (paper, ImageNet)"] == ["77.2", "71.5", ""]
    assert len(paper.lines(rows, shown, intervals, figures=False)) == 2
    (column, *_) = paper.columns(rows, ["class"], "cifar100")
    assert paper.PAPER_RESULTS["I-JEPA H/14"][column.paper_key] == 87.5


def test_count_and_distance_have_protocols_of_their_own():
    names = ["count", "distance", "colour"]
    rows = [row("target encoder", count__count=0.4, distance__distance=0.5, count__linear=0.1, colour__linear=0.6,
                depth_delta1=0.9)]  # fmt: skip
    shown = paper.columns(rows, names, "scenes")
    assert [column.title for column in shown] == ["count", "distance", "colour, linear", "depth, delta_1"]
    lines = {line[0]: line[1:] for line in paper.lines(rows, shown, {"target encoder": {}}, figures=True)}
    assert lines["target encoder"] == ["40.0", "50.0", "60.0", "90.0"]
    assert lines["I-JEPA H/14 (paper, CLEVR)"] == ["86.7", "72.4", "", ""]
    assert not any(name.startswith("I-JEPA B/16") for name in lines)


@pytest.mark.slow
def test_the_whole_of_it(finished, invoke, tmp_path):
    folder, _ = finished
    short = ["task.linear.epochs=1", "task.finetune.epochs=1", "task.finetune.warmup_epochs=0",
             "task.lowshot_finetune.epochs=5", "task.lowshot.draws=2"]  # fmt: skip
    short += [f"task.{name}.layers=[1,2]" for name in ("linear", "count", "distance", "depth", "segmentation")]
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", "task=paper", *short, f"output={tmp_path}")
    assert code == 0, error
    assert "task=paper skips count: the images have no labels count; try class" in output
    assert "task=paper skips depth: " in output
    table = (tmp_path / "paper.md").read_text().splitlines()
    assert table[0] == "|  | linear | 1 % | 1 %, fine-tuned | fine-tuned |"
    assert [line.split(" | ")[0] for line in table[2:6]] == [
        "| target encoder", "| random init", "| raw pixels", "| I-JEPA B/16 (paper, ImageNet)"
    ]  # fmt: skip
    results = json.loads((tmp_path / "metrics.json").read_text())["results"]
    assert {"knn20", "logistic", "linear", "lowshot_1pct", "lowshot_finetune_1pct", "finetune"} <= set(
        results["target encoder"]
    )
    assert "finetune" not in results["raw pixels"]
