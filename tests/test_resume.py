"""Going on with a run."""

import csv
import json
import re
import shutil

import pytest
import torch
from conftest import TINY
from omegaconf import OmegaConf

from ijepa import runs

pytestmark = pytest.mark.slow


def test_a_finished_run_says_so(finished, invoke):
    folder, _ = finished
    code, output, _ = invoke("train.py", f"resume={folder}")
    assert code == 0
    assert "finished, all 3 steps are done" in output


def test_an_option_of_a_group_takes_the_place_of_the_run_s(invoke, tmp_path):
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, "callbacks.checkpoint_every_steps=1", f"run_dir={folder}")[0] == 0
    back = f"resume={folder}/checkpoints/step-000002.ckpt"
    code, _, error = invoke("train.py", back, "masking=random", "task=knn")
    assert code == 2
    assert "masking.name=multiblock would become random" in error
    assert "task" not in error
    code, _, error = invoke("train.py", back, "masking=random", "task=knn", "force=true")
    assert code == 0, error
    results = json.loads((folder / "summary.json").read_text())["results"]["target encoder"]
    assert not any("logistic" in name for name in results)
    saved = OmegaConf.load(folder / "config-000002.yaml")
    assert saved.masking.name == "random"
    assert "num_targets" not in saved.masking


def test_going_back_by_a_relative_path(invoke, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    values = ["data=digits", *TINY, "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=9"]
    assert invoke("train.py", *values, f"run_dir={folder}")[0] == 0
    whole = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    monkeypatch.chdir(tmp_path)
    assert invoke("train.py", "resume=run/checkpoints/step-000001.ckpt", "hardware.accumulation=2")[0] == 0
    again = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert again["global_step"] == whole["global_step"] == 3
    with (folder / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_what_differs_is_listed_and_can_be_insisted_on(finished, invoke, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = (copy / "config.yaml").read_text()
    arguments = [f"resume={copy}", "schedule.max_steps=4", "objective=l1", "hardware.accumulation=2"]
    code, _, error = invoke("train.py", *arguments)
    assert code == 2
    expected = "objective.distance=l2 would become l1, schedule.max_steps=3 would become 4; leave that out"
    assert error.startswith(f"error: resume={copy}: {expected}")
    assert error.count("\n") == 1
    code, _, error = invoke("train.py", *arguments, "force=true")
    assert code == 0, error
    assert (copy / "config.yaml").read_text() == before
    later = OmegaConf.load(copy / "config-000003.yaml")
    assert (later.objective.distance, later.schedule.max_steps, later.hardware.accumulation) == ("l1", 4, 1)
    code, output, _ = invoke("train.py", f"resume={copy}")  # what was insisted on stays
    assert "finished, all 4 steps are done" in output
    assert torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_other_images_than_before(invoke, pictures, tmp_path):
    root, folder = tmp_path / "images", tmp_path / "run"
    shutil.copytree(pictures, root)
    values = ["data=folder", f"data.root={root}", "data.image_size=16", "model.patch_size=4", "data.batch_size=8"]
    assert invoke("train.py", *values, *TINY, f"run_dir={folder}", "schedule=constant")[0] == 0
    (root / "train" / "warm" / "train-0.png").unlink()
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=4")
    assert code == 2
    assert f"data.root={root}: not the images that the run began with (24 training images, now 23)" in error
    assert invoke("train.py", f"resume={folder}", "schedule.max_steps=4", "force=true")[0] == 0


def test_a_stopped_run_goes_on_to_the_same_weights(finished, invoke, tmp_path, pictures, monkeypatch):
    folder, _ = finished
    half = tmp_path / "half"
    execute = runs.execute

    def stopped(run, last=None):
        run.trainer.fit_loop.epoch_loop.max_steps = 2
        return execute(run, last)

    monkeypatch.setattr(runs, "execute", stopped)
    assert invoke("train.py", "--config-dir", folder, "--config-name", "config", f"run_dir={half}")[0] == 0
    monkeypatch.setattr(runs, "execute", execute)
    before = (half / "config.yaml").read_text()
    code, _, _ = invoke("train.py", f"resume={half}", "data.workers=1")
    assert code == 0
    assert (half / "config.yaml").read_text() == before
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, half))
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name


@pytest.mark.parametrize(("schedule", "stop"), [("constant", 2), ("cooldown", 1)])
def test_a_run_without_decay_can_be_extended(invoke, tmp_path, monkeypatch, schedule, stop):
    """The weights are those of a run that was that long from the start."""
    values = ["data=digits", *TINY, "data.batch_size=16", f"schedule={schedule}", "schedule.cooldown_steps=1"]
    whole, short = tmp_path / "whole", tmp_path / "short"
    assert invoke("train.py", *values, "schedule.max_steps=4", f"run_dir={whole}")[0] == 0
    execute = runs.execute

    def stopped(run, last=None):
        run.trainer.fit_loop.epoch_loop.max_steps = stop
        return execute(run, last)

    monkeypatch.setattr(runs, "execute", stopped)
    assert invoke("train.py", *values, "schedule.max_steps=2", f"run_dir={short}")[0] == 0
    monkeypatch.setattr(runs, "execute", execute)
    code, _, error = invoke("train.py", f"resume={short}", "schedule.max_steps=4")
    assert code == 0, error
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, short))
    assert other["global_step"] == 4
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    code, _, error = invoke("train.py", f"resume={whole}", "schedule.max_steps=6")
    assert code == (0 if schedule == "constant" else 2)
    assert ("where the cooldown begins" in error) == (schedule == "cooldown")


def test_a_run_from_before_max_pixels_goes_on(invoke, tmp_path):
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={folder}")[0] == 0
    saved = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"\n  max_pixels: .*", "", saved))
    assert "max_pixels" in saved
    assert invoke("evaluate.py", f"checkpoint={folder}")[0] == 0
    assert invoke("train.py", f"resume={folder}")[0] == 0
