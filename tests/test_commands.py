"""Whole runs, as a user starts them."""

import csv
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, command, composed, picture, train_config
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

import ijepa
from ijepa import cli, runs
from ijepa.checks import check, parse
from ijepa.config import TrainConfig
from ijepa.data import sources, statistics
from ijepa.data.datamodule import Places

pytestmark = pytest.mark.slow


@pytest.fixture
def invoke(monkeypatch, capsys):
    """A command in this process: its exit code, standard output and standard error."""

    def run(script, *arguments):
        from ijepa import evaluations

        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        job = {"train.py": runs.train, "evaluate.py": evaluations.evaluate, "statistics": statistics.statistics}[script]
        code = 0
        try:
            cli.main(script.removesuffix(".py"), job)
        except SystemExit as error:
            code = error.code
        finally:
            GlobalHydra.instance().clear()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A finished run on images that are not square."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = command("train.py", "data=folder", f"data.root={pictures}", "data.image_size=[16,24]",
                     "model.patch_size=4", "data.batch_size=8", f"run_dir={folder}", *TINY)  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_a_run_s_folder(finished):
    folder, output = finished
    lines = output.splitlines()
    assert lines[0] == lines[-1] == f"run_dir {folder}"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/step-000003.ckpt",
        "encoder.safetensors",
        "summary.json",
        "pictures/masks.png",
        "pictures/features.png",
    }
    assert "24 for training, 8 for validation, 2 classes" in output
    assert "context patches per image" in output
    assert "target encoder" in output
    assert "raw pixels" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 3
    assert summary["images"] == 24
    assert set(summary["results"]) == {"target encoder", "random init", "raw pixels"}
    with (folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["1", "2", "3"]
    assert {"images", "flops", "seconds", "train/loss", "val/knn20"} <= set(table[0])
    assert float(table[-1]["val/knn20"]) == pytest.approx(summary["results"]["target encoder"]["knn20"])
    saved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    saved.pop("defaults")
    assert parse(TrainConfig, saved).data.image_size == [16, 24]


def test_the_encoder_from_python(finished):
    folder, _ = finished
    encoder = ijepa.load_encoder(folder)
    images = encoder.transform(picture(1, 50, 70))[None]
    assert images.shape == (1, 3, 16, 24)
    assert 0 <= images.min() < images.max() <= 1
    features = encoder(images)
    assert features.shape == (1, 24, 24)
    same = ijepa.load_encoder(folder / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(same(images), features, atol=1e-6, rtol=0)
    assert not torch.equal(ijepa.load_encoder(folder, encoder="context")(images), features)


@pytest.mark.parametrize("task", ["knn", "logistic"])
def test_evaluate(finished, invoke, pictures, tmp_path, task):
    folder, _ = finished
    code, _, _ = invoke("evaluate.py", f"checkpoint={folder}", f"task={task}")
    assert code == 0
    written = json.loads((folder / "evaluation" / task / "metrics.json").read_text())
    assert set(written["results"]) == {"target encoder", "random init", "raw pixels"}
    assert written["images"] == {"train": 24, "val": 8}
    if task == "knn":  # the same protocol as at the end of training
        summary = json.loads((folder / "summary.json").read_text())
        assert written["results"]["target encoder"].items() <= summary["results"]["target encoder"].items()
    arguments = [f"checkpoint={folder}/checkpoints/last.ckpt", f"task={task}", "encoder=context", "baselines=false",
                 "data=folder", f"data.root={pictures}", "data.image_size=[32,48]", f"output={tmp_path}"]  # fmt: skip
    code, _, _ = invoke("evaluate.py", *arguments)
    assert code == 0
    assert set(json.loads((tmp_path / "metrics.json").read_text())["results"]) == {"context encoder"}


def test_evaluations_do_not_replace_each_other(finished, invoke):
    folder, _ = finished
    for changes in ((), ("encoder=context",), ("data.image_size=32",)):
        assert invoke("evaluate.py", f"checkpoint={folder}", "baselines=false", *changes)[0] == 0
    path = next((folder / "checkpoints").glob("step-*.ckpt"))
    assert invoke("evaluate.py", f"checkpoint={path}", "baselines=false")[0] == 0
    expected = {"knn", "knn_encoder-context", "knn_data.image_size-32", f"knn_{path.stem}"}
    assert expected <= {place.name for place in (folder / "evaluation").iterdir()}


def test_an_unreadable_file_counts_once(pictures, tmp_path, invoke):
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    broken = root / "train" / "cold" / "broken.png"
    broken.write_bytes((root / "train" / "cold" / "train-0.png").read_bytes()[:60])
    (root / "train" / "cold" / os.fsdecode(b"note\xff.txt")).write_text("x")
    folder = tmp_path / "run"
    code, output, _ = invoke("train.py", "data=folder", f"data.root={root}", "data.image_size=16",
                             "model.patch_size=4", "data.batch_size=8", f"run_dir={folder}", *TINY,
                             "schedule.max_steps=4")  # fmt: skip
    assert code == 0
    assert "1 files could not be read" in output
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["unreadable"]) == 1
    assert summary["unreadable"][0].startswith(str(broken))
    assert summary["not_images"] == [str(root / "train" / "cold" / os.fsdecode(b"note\xff.txt"))]


def test_evaluation_holds_out_what_training_held_out(invoke, pictures, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    images = ["data=folder", f"data.root={pictures / 'train'}", "data.val_fraction=0.25", "data.image_size=16",
              "model.patch_size=4"]  # fmt: skip
    assert invoke("train.py", *images, *TINY, "seed=5", f"run_dir={folder}")[0] == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert invoke("evaluate.py", f"checkpoint={folder}", "baselines=false")[0] == 0
    written = json.loads((folder / "evaluation" / "knn" / "metrics.json").read_text())
    assert written["results"]["target encoder"].items() <= summary["results"]["target encoder"].items()
    split = sources.build(train_config(*images, *TINY, "seed=5").data, 5)
    other = sources.build(train_config(*images, *TINY).data, 0)
    assert [split.val.name(i) for i in range(6)] != [other.val.name(i) for i in range(6)]


def test_a_run_killed_before_its_export_is_completed(invoke, finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in ("summary.json", "encoder.safetensors"):
        (copy / name).unlink()
    assert invoke("train.py", f"resume={copy}")[0] == 0
    one, other = (load_file(run / "encoder.safetensors") for run in (folder, copy))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert json.loads((copy / "summary.json").read_text())["steps"] == 3


def test_evaluate_the_reference_s_checkpoint(checkpoint_file, pictures, tmp_path, invoke):
    code, _, error = invoke("evaluate.py", f"checkpoint={checkpoint_file}")
    assert (code, error.count("\n")) == (2, 1)
    assert "data=folder" in error
    code, output, _ = invoke(
        "evaluate.py", f"checkpoint={checkpoint_file}", "data=folder", f"data.root={pictures}", f"output={tmp_path}"
    )
    assert code == 0
    assert "random init" in output


@pytest.mark.parametrize(
    ("arguments", "starts"),
    [
        (["evaluate.py"], "checkpoint is not set"),
        (["evaluate.py", "checkpoint=/nowhere"], "checkpoint=/nowhere: no such file"),
        (["evaluate.py", "checkpoint={folder}", "task=nothing"], "task=nothing: no such option"),
        (["evaluate.py", "checkpoint={folder}", "data.channels=1"], "data.channels=1: the encoder was trained on 3"),
        (["evaluate.py", "checkpoint={folder}", "data.image_size=30"], "data.image_size=[30,30]: not divisible"),
        (["train.py", "run_dir={folder}"], "run_dir={folder}: holds a run; resume={folder}"),
        (
            ["train.py", "resume={folder}", "optimizer.lr=1", "seed=1"],
            "resume={folder}: seed=0 would become 1, optimizer.lr=0.0005 would become 1.0; leave that out",
        ),
        (["train.py", "resume={folder}", "model=vit_small"], "resume={folder}: model.patch_size=4 would become 16, "),
        (["train.py", "resume={folder}", "optimizer.lrr=1"], "optimizer.lrr=1: no such key"),
        (["train.py", "resume=/nowhere"], "resume=/nowhere: no such run"),
        (["train.py", "data=folder", "data.root=/nowhere"], "data.root=/nowhere: no such folder"),
        (["train.py", "optimizer.lrr=1"], "optimizer.lrr=1: no such key; did you mean optimizer.lr?"),
        (["train.py", "schedule.warmup_epochs=100"], "schedule.warmup_epochs=100"),
        (["train.py", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["train.py", "--run", "--multirun"], "only one of --run"),
        (["train.py", "--config-name", "nope"], "--config-name nope: no such file"),
        (["train.py", "model=null"], "model=null: takes the name of an option"),
        (["train.py", "=3"], "=3: no key before"),
        (["train.py", "run_dir="], "run_dir=: needs a folder"),
        (["train.py", "data=digits", "data.val_fraction=0.9999"], "data.val_fraction=0.9999: leaves no image"),
        (["train.py", "data.source=nope.mod.f"], "data.source=nope.mod.f: cannot be imported: ModuleNotFoundError"),
        (["train.py", "data.source=os.path.join"], "data.source=os.path.join: fails"),
        (["train.py", "resume={folder}", "run_dir=other"], "run_dir=other: a resumed run stays"),
        (["evaluate.py", "checkpoint={folder}", "data=folder"], "data.root is not set"),
        (["evaluate.py", "checkpoint={folder}", "output=/proc/x"], "output=/proc/x: cannot be made"),
        (["evaluate.py", "checkpoint={folder}", "data.mean=[0,0,0]"], "data.mean=[0,0,0]: the encoder comes with"),
        (["train.py", "masking=[block,random]"], "masking=[block,random]: takes one option"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(finished, invoke, arguments, starts):
    folder, _ = finished
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    code, output, error = invoke(*(argument.format(folder=folder) for argument in arguments))
    assert code == 2
    assert error.startswith(f"error: {starts.format(folder=folder)}")
    assert error.count("\n") == 1
    assert not output
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


def test_a_finished_run_says_so(finished, invoke):
    folder, _ = finished
    code, output, _ = invoke("train.py", f"resume={folder}")
    assert code == 0
    assert "finished, all 3 steps are done" in output


def test_a_run_can_be_repeated_from_its_folder(finished, invoke, tmp_path):
    folder, _ = finished
    again = tmp_path / "again"
    code, *_ = invoke("train.py", "--config-dir", folder, "--config-name", "config", f"run_dir={again}")
    assert code == 0
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, again))
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name


def test_a_file_that_only_the_second_device_reads_is_named(pictures, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(pictures, root)
    data = train_config("data=folder", f"data.root={root}").data
    second = next(iter(Places(24, 8, 0, 3, 0, accumulation=1, device=1, devices=2)))
    broken = Path(sources.build(data, 0).train.name(second[0].image))
    broken.write_bytes(broken.read_bytes()[:-40])
    folder = tmp_path / "run"
    result = command("train.py", "data=folder", f"data.root={root}", "data.image_size=16", "model.patch_size=4",
                     "data.batch_size=8", f"run_dir={folder}", *TINY, "hardware=ddp", "hardware.accelerator=cpu",
                     "task=knn", "task.knn.batch_size=8")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"unreadable, replaced by the next image: {broken}" in result.stdout
    assert any(str(broken) in fault for fault in json.loads((folder / "summary.json").read_text())["unreadable"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_saved(tmp_path, invoke, number):
    folder = tmp_path / "run"
    arguments = ["data=digits", *TINY, "schedule.max_steps=100000", "data.workers=1", f"run_dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert output.splitlines()[-1] == f"run_dir {folder}"
    assert f"resume={folder}" in error
    assert error.count("\n") == 1
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < saved["global_step"] < 100000
    assert not (folder / "encoder.safetensors").exists()
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=5")
    assert code == 2


def test_ctrl_c_saves_a_run_whose_output_nobody_reads_any_more(tmp_path):
    """As in python train.py | tee log: tee ends first."""
    folder = tmp_path / "run"
    arguments = ["data=digits", *TINY, "schedule.max_steps=100000", "callbacks.progress_every_seconds=0.01"]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *arguments, f"run_dir={folder}"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    for line in process.stdout:
        if line.startswith("step "):
            break
    process.stdout.close()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert error.count("\n") == 1
    assert (folder / "checkpoints" / "last.ckpt").exists()


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_run_at_once(tmp_path, number):
    """Here in the middle of a step that takes minutes."""
    (tmp_path / "slow_source.py").write_text(
        "import time\n"
        "from ijepa.data.sources import Source, digits\n"
        "def build(data, seed):\n"
        "    found = digits(data, seed)\n"
        "    found.train.read = lambda index: print('reading', flush=True) or time.sleep(300)\n"
        "    return found\n"
    )
    arguments = ["data=digits", *TINY, "data.source=slow_source.build", f"run_dir={tmp_path / 'run'}"]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *arguments], stdout=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True)  # fmt: skip
    for line in process.stdout:
        if line == "reading\n":
            break
    process.send_signal(number)
    while "ends after this step" not in process.stdout.readline():
        pass
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number
    process.stdout.close()


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


def test_a_sweep_goes_on_when_a_job_is_faulty(tmp_path):
    values = [
        "-m",
        f"run_dir={tmp_path / 'sweep'}",
        "data=digits",
        *TINY,
        "model.patch_size=4,5",
        "optimizer=adamw,adam",
    ]
    result = command("train.py", *values, f"hydra.sweep.dir={tmp_path}")
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert "optimizer=adam: no such option; did you mean adamw?" in lines[0]
    assert "model.patch_size=5: does not divide" in lines[1]
    assert lines[3] == "error: 3 of 4 jobs failed"
    folders = [path for path in (tmp_path / "sweep").iterdir() if (path / "summary.json").exists()]
    assert len(folders) == 1
    assert not set(folders[0].name) & set("=,")


def test_wandb_offline(invoke, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "run"
    code, _, error = invoke(
        "train.py", "data=digits", *TINY, f"run_dir={folder}", "logger=wandb", "logger.mode=offline"
    )
    assert code == 0, error
    assert list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert (folder / "metrics.csv").exists()


def test_wandb_without_a_login(invoke, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, error = invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path / 'run'}", "logger=wandb")
    assert code == 2
    assert error.splitlines()[-1].startswith("error: logger=wandb: not logged in")


def test_help(invoke):
    code, output, _ = invoke("train.py", "--help", "model=vit_small")
    assert code == 0
    assert "model.width=384" in output
    assert "attention heads" in output
    assert "masking=block|multiblock|random|rasterized|reference" in output
    assert max(len(line) for line in output.splitlines()) < 200
    assert "checkpoint" in invoke("evaluate.py", "--help")[1]


@pytest.fixture
def evaluated(invoke, tmp_path):
    """Pretrains on a folder of two classes, evaluates with both tasks; the run's folder and the results."""

    def run(*arguments):
        folder = tmp_path / "run"
        code, _, error = invoke("train.py", *arguments, "model.patch_size=8", *TINY, "data.batch_size=8",
                                "hardware.precision=32-true", f"run_dir={folder}")  # fmt: skip
        assert code == 0, error
        assert not json.loads((folder / "summary.json").read_text())["unreadable"]
        results = {}
        for task in ("knn", "logistic"):
            code, _, error = invoke("evaluate.py", f"checkpoint={folder}", f"task={task}")
            assert code == 0, error
            results[task] = json.loads((folder / "evaluation" / task / "metrics.json").read_text())["results"]
            assert set(results[task]) == {"target encoder", "random init", "raw pixels"}
        return folder, results

    return run


def classes_of_arrays(root, shape, dtype):
    """A dark and a light class of 12 images each: name and values."""
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(12):
            values = np.random.default_rng(12 * label + i).normal(0.3 + 0.4 * label, 0.05, shape)
            yield root / name / str(i), (values.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def test_a_format_of_16_bits_pretrains_and_evaluates(evaluated, tmp_path):
    """Grey TIFFs of 96x160."""
    root = tmp_path / "images"
    for path, values in classes_of_arrays(root, (96, 160), np.uint16):
        Image.fromarray(values).save(path.with_suffix(".tif"))
    folder, results = evaluated(
        "data=folder", f"data.root={root}", "data.channels=1", "data.mean=[0.5]", "data.std=[0.2]",
        "data.image_size=[96,160]", "data.val_fraction=0.25",
    )  # fmt: skip
    assert results["logistic"]["raw pixels"]["logistic"] == 1
    encoder = ijepa.load_encoder(folder)
    values = np.full((96, 160), 300, np.uint16)  # below what 8 bits can tell apart from 257
    image = encoder.transform(Image.fromarray(values))
    assert image.shape == (1, 96, 160)
    assert image.unique().tolist() == [pytest.approx(300 / 65535)]
    assert encoder(image[None]).shape == (1, 240, 24)


def test_a_format_of_12_channels_pretrains_and_evaluates(evaluated, invoke, tmp_path, monkeypatch):
    """Arrays whose statistics are measured first."""
    root = tmp_path / "images"
    for path, values in classes_of_arrays(root, (12, 40, 36), np.uint8):
        np.save(path.with_suffix(".npy"), values)
    monkeypatch.setattr(statistics, "OPTIONS", tmp_path / "conf" / "data")
    size = ["data.channels=12", "data.image_size=32", "data.val_fraction=0.25", "data.workers=0"]
    code, _, error = invoke("statistics", f"data.root={root}", *size, "name=bands")
    assert code == 0, error
    folder, results = evaluated("--config-dir", tmp_path / "conf", "data=bands")
    assert results["logistic"]["raw pixels"]["logistic"] == 1
    encoder = ijepa.load_encoder(folder)
    assert len(encoder.spec.mean) == 12
    image = encoder.transform(torch.rand(12, 50, 70))
    assert encoder(image[None]).shape == (1, 16, 24)
    same = ijepa.load_encoder(folder / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(same(image[None]), encoder(image[None]), atol=1e-6, rtol=0)


def test_a_run_from_before_max_pixels_goes_on(invoke, tmp_path):
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={folder}")[0] == 0
    saved = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"\n  max_pixels: .*", "", saved))
    assert "max_pixels" in saved
    assert invoke("evaluate.py", f"checkpoint={folder}")[0] == 0
    assert invoke("train.py", f"resume={folder}")[0] == 0


def readme_commands():
    return re.findall(r"`python ((?:train|evaluate)\.py[^`]*)`", (ROOT / "README.md").read_text())


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_of_the_readme(line, finished, pictures, tmp_path, invoke):
    """Composes; and runs at a small size where it is possible here."""
    folder, _ = finished
    for name, value in {"RUN_DIR": folder, "IMAGES": pictures, "NEW": tmp_path / "new", "PROJECT": "test"}.items():
        line = line.replace(name, str(value))
    script, *arguments = shlex.split(line)
    if "hardware=gpu" in arguments or "hardware=ddp" in arguments:
        check(parse(TrainConfig, composed(*arguments)))
        return
    if "--help" in arguments or "resume" in line or "--config-dir" in line:
        assert invoke(script, *arguments)[0] == 0
        return
    if script == "evaluate.py":
        assert invoke(script, *arguments, f"output={tmp_path}")[0] == 0
        return
    small = [
        "hardware.accelerator=cpu", "model.width=24", "model.heads=3", "model.depth=1", "predictor.width=12",
        "predictor.depth=1", "schedule.max_steps=1",
        "schedule.warmup_steps=0", "data.workers=0", f"hydra.sweep.dir={tmp_path}",
    ]  # fmt: skip
    if "data=" not in line and "experiment=" not in line:
        small += ["data.scenes.train=40", "data.scenes.val=24", "data.image_size=32"]
    if "data.batch_size=512" not in line:
        small += ["data.batch_size=8"]
    if "logger=wandb" in line:
        small += ["logger.mode=offline"]
    code, _, error = invoke(script, *arguments, f"run_dir={tmp_path / 'run'}", *small)
    assert code == 0, error


@pytest.mark.parametrize("name", ["masking", "pictures", "visibility"])
def test_benchmarks_run(name, tmp_path, monkeypatch, capsys):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    if name == "masking":
        monkeypatch.setattr(benchmark, "ROUNDS", 2)
    else:
        monkeypatch.setattr(benchmark, "OUTPUT", tmp_path / "picture.png")
    if name == "visibility":
        monkeypatch.setattr(benchmark, "IMAGES", 512)
    benchmark.main()
    assert capsys.readouterr().out
    assert name == "masking" or (tmp_path / "picture.png").stat().st_size > 10_000
