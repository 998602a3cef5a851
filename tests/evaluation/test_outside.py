"""A task of the user's own: evaluated, and described wherever its metric is shown."""

import importlib
import json
import re
import sys
from types import SimpleNamespace

import pytest
from helpers import SMALL, TINY, composed, rows, train_config

from ijepa.cli import entry
from ijepa.report import command as report
from ijepa.run import build
from ijepa.run.columns import columns
from ijepa.sweeps import jobs, metric, table

TASK = """
import torch
from ijepa.evaluation.task import MetricValue, MetricSpec, Task, TaskResult


class Brightness(Task):
    '''How far off a linear fit of the mean brightness is.'''

    needs_labels = False

    def __init__(self, ridge: float, scale: int = 1) -> None:
        self.ridge, self.scale = ridge, scale

    def metrics(self, several):
        return [MetricSpec("brightness_error", "Brightness error", "grey levels", "lower", "ridge regression")]

    def evaluate(self, model, ctx):
        train, test = ctx.features(model, 1, 64)
        error = float(test.values.std()) * self.scale
        return {"": TaskResult({"brightness_error": MetricValue(error)}, {"ridge": self.ridge})}

    def write(self, model, ctx, folder):
        (folder / f"{model.name}.txt").write_text("seen")
        return [folder / f"{model.name}.txt"]


class Nothing(Brightness):
    def metrics(self, several):
        return []


class Half:
    '''Lacks everything.'''
"""
SPEC = {"name": "brightness_error", "title": "Brightness error", "unit": "grey levels", "better": "lower",
        "about": "ridge regression", "short": "", "series": ""}  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module and options of the user's own."""
    (tmp_path / "own_tasks.py").write_text(TASK)
    options = tmp_path / "own_conf" / "task"
    options.mkdir(parents=True)
    for name in ("Brightness", "Nothing", "Half", "Missing"):
        text = f"# @package task.{name.lower()}\n_target_: own_tasks.{name}\n"
        (options / f"{name.lower()}.yaml").write_text(text + ("" if name == "Half" else "ridge: 0.5\n"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_tasks", None)


def test_evaluate(own, invoke):
    code, said, error = invoke("evaluate.py", "--config-dir", own / "own_conf", "checkpoint=random", "data=digits",
                               "hardware=cpu", "task=[knn,brightness]", "task.knn.k=[20]", "task.brightness.ridge=2",
                               f"output={own / 'out'}")  # fmt: skip
    assert code == 0, error
    assert re.search(r"brightness_error\W+\d\.\d{3}\W+\d", said)
    found = json.loads((own / "out" / "metrics.json").read_text())
    assert found["results"]["random init"]["brightness_error"] > 0
    assert found["details"]["random init"]["brightness"] == {"": {"ridge": 2.0}}
    assert found["metrics"] == {"brightness_error": SPEC}
    assert found["config"]["task"]["brightness"] == {"_target_": "own_tasks.Brightness", "ridge": 2}
    assert (own / "out" / "random init.txt").read_text() == "seen"


def test_what_wandb_is_told(own):
    config = train_config(
        *SMALL, "task=[knn,logistic]", "+task.brightness={_target_:own_tasks.Brightness,ridge:1}", "~task.knn"
    )
    run = build.run(config, own / "run")
    found = columns(config, run.tasks()[0], run.data)
    assert found["val/brightness_error"].better == "lower"
    assert found["val/logistic"].better == "higher"
    assert found["train/distance"].better == "lower"


def test_optuna_searches_in_its_direction(own):
    entry._register_plugins()
    sweeping = importlib.import_module("hydra_plugins.ijepa_sweeping")
    config = composed("+task.brightness={_target_:own_tasks.Brightness,ridge:1}", "metric=brightness_error")
    assert sweeping.Jobs.direction.fget(SimpleNamespace(config=config)) == "minimize"
    assert sweeping.Jobs.direction.fget(SimpleNamespace(config=composed())) == "maximize"


def test_a_run_describes_it(own, invoke):
    """Its table, report, and a sweep's direction."""
    sweep = own / "sweep"
    code, said, error = invoke(
        "train.py", "-m", "--config-dir", own / "own_conf", *TINY, "data=digits", "data.batch_size=64", "seed=0",
        "task=brightness", "callbacks.evaluate_every_epochs=null", "metric=brightness_error", f"run_dir={sweep}",
    )  # fmt: skip
    assert code == 0, error
    [job] = jobs.read(sweep).jobs
    assert job.summary["metrics"]["brightness_error"] == SPEC
    assert job.summary["metrics"]["headline"]["better"] == "lower"
    assert metric.direction("brightness_error", jobs.read(sweep).custom_specs) == "minimize"
    assert jobs.read(sweep).direction == "minimize"
    value = job.summary["results"]["target encoder"]["brightness_error"]
    assert table.terminal_table(jobs.read(sweep)).columns[0].header.plain == "brightness_error"
    assert f"{value:.4g}" in said
    assert rows(job.folder)[-1]["val/brightness_error"]
    for page in (sweep, job.folder):
        assert report.main([str(page)]) == 0
    source = (job.folder / "report.html").read_text()
    assert "Brightness error" in source
    assert "grey levels" in source
    assert "Brightness error" in (sweep / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["task=brightness", "+task.brightness.rigde=1"],
         "task.brightness.rigde=1: no such key; own_tasks.Brightness takes ridge, scale"),
        (["task=brightness", "task.brightness.ridge=steep"], "task.brightness.ridge=steep: should be a valid number"),
        (["task=brightness", "~task.brightness.ridge"], "task.brightness.ridge is not set; own_tasks.Brightness needs"),
        (["task=missing"], "task.missing._target_=own_tasks.Missing: cannot be imported: AttributeError"),
        (["task=half"], "task.half._target_=own_tasks.Half: lacks evaluate, metrics, "),
        (["task=nothing"], "task.nothing._target_=own_tasks.Nothing: has no metrics; return a MetricSpec at least"),
        (["+task.foo=3"], "task.foo=3: no such task; try knn, logistic"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(own, invoke, arguments, line):
    code, _, error = invoke("evaluate.py", "--config-dir", own / "own_conf", "checkpoint=random", "data=digits",
                            "hardware=cpu", *arguments, f"output={own / 'out'}")  # fmt: skip
    assert code == 2
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1
