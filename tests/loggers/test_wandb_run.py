"""What W&B is told, by what it writes offline."""

import json

import pytest
from helpers import LOGGED, TINY, rows
from wandb_files import told

from ijepa import loggers


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)


def test_wandb_is_told_everything(invoke, tmp_path, offline):
    folder = tmp_path / "run"
    code, _, error = invoke(
        "train.py", *LOGGED, f"run_dir={folder}", "logger.project=painting", "logger.entity=us", "logger.group=both",
        "logger.tags=[a,b]", "logger.notes=why", "logger.job_type=long", "logger.run_name=first",
        "logger.artifacts=[encoder,checkpoints]",
    )  # fmt: skip
    assert code == 0, error
    assert "anonymous" not in error
    found = told(folder)
    run = found.runs[-1]
    assert (run.project, run.entity, run.run_group, run.job_type, run.display_name, run.notes) == (
        "painting", "us", "both", "long", "first", "why",
    )  # fmt: skip
    assert list(run.tags) == ["a", "b"]
    assert found.config["model"]["width"] == 24
    assert found.config["data"]["source"] == "digits"
    steps = {row["trainer/global_step"] for row in found.history}
    assert steps == {0, 1, 2, 3}
    logged = {name for row in found.history for name in row}
    assert {"train/loss", "lr", "momentum", "health/rankme", "health/verdict", "val/knn20"} <= logged
    kinds = {name: row[name] for row in found.history for name in row if name.endswith("/_type")}
    for name in ("pictures/features", "pictures/final/masks", "pictures/final/attention"):
        assert kinds[f"{name}/_type"] == "images/separated"
    for name, better in (
        ("train/loss", "min"),
        ("val/knn20", "max"),
        ("health/rankme", "max"),
        ("health/knn", "max"),
        ("train/distance", "min"),
    ):
        assert getattr(found.metrics[name].summary, better), name
    assert {artifact.name for artifact in found.artifacts} == {f"encoder-{run.run_id}", f"checkpoints-{run.run_id}"}
    held = {entry.path for artifact in found.artifacts for entry in artifact.manifest.contents}
    assert {"encoder.safetensors", "config.yaml", "last.ckpt", "best-rankme.ckpt", "best-knn.ckpt"} <= held
    assert rows(folder)[-1]["val/knn20"]


def test_wandb_goes_on_with_the_same_run(invoke, tmp_path, offline):
    folder = tmp_path / "run"
    length = ("schedule=constant", "schedule.warmup_steps=1", "callbacks.pictures=null")
    assert invoke("train.py", *LOGGED, f"run_dir={folder}", *length, "schedule.max_steps=2")[0] == 0
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=4")
    assert code == 0, error
    found = told(folder)
    assert len({run.run_id for run in found.runs}) == 1
    assert json.loads((folder / "wandb.json").read_text())["id"] == found.runs[0].run_id
    assert {row["trainer/global_step"] for row in found.history} == {0, 1, 2, 3, 4}
    elsewhere = invoke("train.py", f"resume={folder}", "schedule.max_steps=5", "logger=wandb", "logger.project=another",
                       "logger.mode=offline")  # fmt: skip
    assert elsewhere[0] == 0, elsewhere[2]
    assert len({run.run_id for run in told(folder).runs}) == 2


def test_wandb_has_a_run_for_each_job_of_a_sweep(invoke, tmp_path, offline):
    code, _, error = invoke("train.py", "-m", *LOGGED, "callbacks.pictures=null", "seed=0,1",
                            f"run_dir={tmp_path / 'sweep'}", f"hydra.sweep.dir={tmp_path}")  # fmt: skip
    assert code == 0, error
    runs = [told(folder).runs[-1] for folder in sorted((tmp_path / "sweep").iterdir()) if folder.is_dir()]
    assert len({run.run_id for run in runs}) == 2
    assert {run.run_group for run in runs} == {"sweep"}
    assert len({run.display_name for run in runs}) == 2


def test_wandb_disabled_leaves_nothing(invoke, tmp_path, offline):
    folder = tmp_path / "run"
    code, _, error = invoke("train.py", *LOGGED, f"run_dir={folder}", "logger.mode=disabled")
    assert code == 0, error
    assert not (folder / "wandb").exists()
    assert not (folder / "wandb.json").exists()


def test_wandb_without_a_login(invoke, tmp_path, monkeypatch, offline):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, error = invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path / 'run'}", "logger=wandb")
    assert code == 2
    assert error.splitlines()[-1].startswith("error: logger=wandb: not logged in")
    assert "logger.mode=offline" in error


def test_an_alert_reaches_wandb(tmp_path, offline, invoke):
    from ijepa.config import WandbLogger
    from ijepa.loggers.wandb_run import WandbRun

    settings = WandbLogger(project="p", entity=None, group=None, job_type=None, tags=[], notes=None,
                           run_name=None, mode="offline", artifacts=[])  # fmt: skip
    logger = WandbRun(settings, tmp_path, {}, {}, resumed=False)
    loggers.begin([logger])
    loggers.alert([logger], "collapsing at step 5", "why")
    loggers.finish([logger], failed=False)
    assert [(alert.title, alert.text) for alert in told(tmp_path).alerts] == [("collapsing at step 5", "why")]


def test_a_mode_that_wandb_does_not_know(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    code, _, error = invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path / 'run'}", "logger=wandb")
    assert code == 2
    assert (
        error.splitlines()[-1] == "error: WANDB_MODE=nonsense: no such mode; try online, offline, disabled, or unset it"
    )
    assert not (tmp_path / "run").exists()
