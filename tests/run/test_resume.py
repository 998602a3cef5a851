"""Going on with a run."""

import csv
import json
import os
import re
import shutil
import signal

import pytest
import torch
from helpers import TINY
from omegaconf import OmegaConf

from ijepa.run import runs
from ijepa.run_folder import RunFolder

pytestmark = pytest.mark.slow


def test_a_finished_run_says_so(finished, invoke):
    folder, _ = finished
    code, output, _ = invoke("train.py", f"resume={folder}")
    assert code == 0
    hint = f"For other tasks: python evaluate.py checkpoint={folder} task=..."
    assert output == f"run_dir {folder}: finished already; nothing is trained or evaluated. {hint}\n"


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
    expected = "objective.distance=l2 would become l1, schedule.max_steps=3 would become 4; omit that"
    assert error.startswith(f"error: resume={copy}: {expected}")
    assert error.count("\n") == 1
    code, _, error = invoke("train.py", *arguments, "force=true")
    assert code == 0, error
    assert (copy / "config.yaml").read_text() == before
    later = OmegaConf.load(copy / "config-000003.yaml")
    assert (later.objective.distance, later.schedule.max_steps, later.hardware.accumulation) == ("l1", 4, 1)
    code, output, _ = invoke("train.py", f"resume={copy}")  # what was insisted on stays
    assert "finished already; " in output
    assert torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_other_images_than_before(invoke, pictures, tmp_path):
    root, folder = tmp_path / "images", tmp_path / "run"
    shutil.copytree(pictures, root)
    values = ["data=folder", f"data.root={root}", "data.image_size=16", "model.patch_size=4", "data.batch_size=8"]
    assert invoke("train.py", *values, *TINY, f"run_dir={folder}", "schedule=constant")[0] == 0
    (root / "train" / "warm" / "train-0.png").unlink()
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=4")
    assert code == 2
    assert f"data.root={root}: not the images that the run started with (24 training images, now 23)" in error
    assert invoke("train.py", f"resume={folder}", "schedule.max_steps=4", "force=true")[0] == 0
    other = tmp_path / "others"
    shutil.copytree(pictures, other)
    code, _, error = invoke("train.py", f"resume={folder}", f"data.root={other}")
    assert (code, f"data.root={other}: not the images" in error) == (2, True)
    assert invoke("train.py", f"resume={folder}", f"data.root={other}", "schedule.max_steps=5", "force=true")[0] == 0
    assert OmegaConf.load(folder / "config-000004.yaml").data.root == str(other)  # what was insisted on stays
    assert invoke("train.py", f"resume={folder}", "schedule.max_steps=6")[0] == 0


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
    code, _, _ = invoke("train.py", f"resume={half}", "data.workers=1", "data.cache_mib=0")
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


@pytest.fixture
def copied(finished, tmp_path):
    """A finished run of three steps, with a checkpoint after each, to be changed."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    return folder


def test_what_was_insisted_on_holds_from_its_step_on(invoke, tmp_path):
    folder = tmp_path / "run"
    values = ["data=digits", *TINY, "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=9"]
    assert invoke("train.py", *values, f"run_dir={folder}")[0] == 0
    back = [f"resume={folder}/checkpoints/step-00000{step}.ckpt" for step in range(4)]
    assert invoke("train.py", back[2], "objective=l1", "force=true")[0] == 0
    assert invoke("train.py", back[2], "optimizer.lr=1e-4", "force=true")[0] == 0
    first, second = (OmegaConf.load(folder / f"config-000002{count}.yaml") for count in ("", "-2"))
    assert (first.objective.distance, first.optimizer.lr) == ("l1", 5e-4)
    assert (second.objective.distance, second.optimizer.lr) == ("l1", 1e-4)
    code, _, error = invoke("train.py", back[3], "optimizer.lr=5e-4")  # the later one holds
    assert (code, "optimizer.lr=0.0001 would become 0.0005" in error) == (2, True)
    assert invoke("train.py", back[1])[0] == 0  # from before both, and without force
    assert not list(folder.glob("config-*.yaml"))
    assert OmegaConf.load(folder / "config.yaml").objective.distance == "l2"
    assert invoke("train.py", f"resume={folder}", "optimizer.lr=5e-4")[0] == 0


def test_networks_of_another_shape_are_refused_even_with_force(copied, invoke):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    arguments = [f"resume={copied}", "objective=pixels", "force=true"]
    code, _, error = invoke("train.py", *arguments)
    assert code == 2
    assert "2 tensors do not match the networks as configured now, e.g. jepa.predictor.proj" in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_a_diverged_run(copied, invoke):
    """Of an older version, which wrote NaN; the weights of the newest checkpoint before it are finite."""
    checkpoints = copied / "checkpoints"
    good = checkpoints / "step-000002.ckpt"
    shutil.copy(checkpoints / "last.ckpt", good)
    contents = torch.load(checkpoints / "last.ckpt", weights_only=True)
    contents["state_dict"]["jepa.predictor.mask_token"][..., 0] = float("nan")
    (checkpoints / "last.ckpt").unlink()
    torch.save(contents, checkpoints / "last.ckpt")
    shutil.copy(checkpoints / "last.ckpt", checkpoints / "step-000003.ckpt")
    code, _, error = invoke("train.py", f"resume={copied}")
    assert code == 2
    spoilt = "last.ckpt is of a run that has diverged: jepa.predictor.mask_token is not finite"
    assert error == f"error: resume={copied}: {spoilt}; try resume={good}, the newest good one\n"


@pytest.mark.parametrize("fault", ["truncated", "alone", "foreign", "encoder"])
def test_checkpoints_that_no_run_can_go_on_from(copied, invoke, fault):
    last = copied / "checkpoints" / "last.ckpt"
    contents = last.read_bytes()
    last.unlink()  # it is another name of the newest
    newest = copied / "checkpoints" / "step-000003.ckpt"
    if fault in ("truncated", "alone"):
        last.write_bytes(contents[:1000])
        expected = f"last.ckpt is not a complete checkpoint; try resume={newest}, the newest good one"
        if fault == "alone":
            newest.unlink()
            expected = "last.ckpt is not a complete checkpoint; and there is no good one"
    elif fault == "foreign":
        torch.save({"model": {}}, last)
        expected = "last.ckpt is not a checkpoint of a run: it contains no state_dict"
    else:
        torch.save({"state_dict": {}, "global_step": 3}, last)
        expected = "it contains no optimizer_states"
    code, _, error = invoke("train.py", f"resume={copied}")
    assert code == 2
    assert error.startswith(f"error: resume={copied}: ")
    assert expected in error
    assert error.count("\n") == 1


def test_nothing_is_dropped_before_the_run_goes_on(invoke, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    values = ["data=digits", *TINY, "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=9"]
    assert invoke("train.py", *values, f"run_dir={folder}")[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    build = runs._wire_checked

    def interrupted(*arguments):
        run = build(*arguments)
        run.trainer.fit_loop.setup_data = lambda: os.kill(os.getpid(), signal.SIGINT)  # when the checkpoint is loaded
        return run

    monkeypatch.setattr(runs, "_wire_checked", interrupted)
    code, _, error = invoke("train.py", f"resume={folder}/checkpoints/step-000001.ckpt", "objective=l1", "force=true")
    assert code == 130
    assert "stopped before any new step; nothing has changed, run the same command again" in error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_a_killed_process_can_leave(copied, invoke):
    """No last.ckpt beside whole checkpoints, half a row of metrics.csv; the results are those of the whole run."""
    before = json.loads((copied / "summary.json").read_text())
    (copied / "checkpoints" / "last.ckpt").unlink()
    (copied / "summary.json").unlink()
    with (copied / "metrics.csv").open("a") as file:
        file.write("\n,,")
    assert f"resume it with resume={copied}" in invoke("train.py", "data=digits", *TINY, f"run_dir={copied}")[2]
    assert invoke("train.py", f"resume={copied}")[0] == 0
    after = json.loads((copied / "summary.json").read_text())
    assert after["loss"] == before["loss"]
    assert after["results"] == before["results"]


@pytest.mark.parametrize("text", ["a: [", "", "- 1", "data: 1", "data: {}", "\xff"])
def test_a_configuration_that_is_none_any_more(copied, invoke, text):
    (copied / "config.yaml").write_text(text, encoding="latin-1")
    for script, key in (("train.py", "resume"), ("evaluate.py", "checkpoint")):
        code, _, error = invoke(script, f"{key}={copied}", "task=knn" if key == "checkpoint" else "data.workers=0")
        said = f"error: {copied}/config.yaml: not the configuration of a run; restore the file that train.py wrote\n"
        assert (code, error) == (2, said)


def test_a_summary_that_is_none_any_more_is_written_again(copied, invoke):
    before = json.loads((copied / "summary.json").read_text())
    (copied / "summary.json").write_text("{")
    assert invoke("train.py", f"resume={copied}")[0] == 0
    assert json.loads((copied / "summary.json").read_text())["results"] == before["results"]


@pytest.mark.parametrize("place", ["saved/step-000001.ckpt", "checkpoints/step-000999.ckpt"])
def test_a_checkpoint_that_was_put_aside(invoke, tmp_path, place):
    folder = tmp_path / "run"
    values = ["data=digits", *TINY, "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=9"]
    assert invoke("train.py", *values, f"run_dir={folder}")[0] == 0
    aside = folder / place
    aside.parent.mkdir(exist_ok=True)
    shutil.copy(folder / "checkpoints" / "step-000001.ckpt", aside)
    assert invoke("train.py", f"resume={aside}", "schedule.max_steps=1", "force=true")[0] == 0
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_what_was_insisted_on_stays_also_where_it_is_free_elsewhere(invoke, tmp_path):
    folder = tmp_path / "run"
    values = ["data=digits", *TINY, "masking=reference", "masking.min_keep=4", "callbacks.checkpoint_every_steps=1"]
    assert invoke("train.py", *values, f"run_dir={folder}")[0] == 0
    back = f"resume={folder}/checkpoints/step-000002.ckpt"
    assert invoke("train.py", back, "hardware.accumulation=2")[0] == 2
    assert invoke("train.py", back, "hardware.accumulation=2", "force=true")[0] == 0
    assert OmegaConf.load(folder / "config-000002.yaml").hardware.accumulation == 2


def test_a_signal_waits_until_all_is_dropped(invoke, tmp_path, monkeypatch):
    """It ends the run after the first step, under the configuration that was insisted on."""
    folder = tmp_path / "run"
    values = ["data=digits", *TINY, "callbacks.checkpoint_every_steps=1", "callbacks.checkpoint_keep=9"]
    assert invoke("train.py", *values, f"run_dir={folder}")[0] == 0
    drop = RunFolder.drop_after

    def interrupted(folder, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        drop(folder, *arguments)

    monkeypatch.setattr(RunFolder, "drop_after", interrupted)
    code, _, error = invoke("train.py", f"resume={folder}/checkpoints/step-000001.ckpt", "objective=l1", "force=true")
    assert code == 143
    assert f"stopped after step 2 of 3; resume with: python train.py resume={folder}" in error
    assert OmegaConf.load(folder / "config-000001.yaml").objective.distance == "l1"
