"""Several processes as a user starts them: the same run as one, whoever launches them, wherever it goes on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import preloaded
import pytest
import torch
from helpers import ROOT, TINY, assert_same, command
from safetensors.torch import load_file

from ijepa import load_encoder
from ijepa.models.pretrained import untrained_encoder

pytestmark = pytest.mark.slow

DDP, FSDP = (("hardware.strategy=" + name, "hardware.devices=2") for name in ("ddp", "fsdp"))


@pytest.fixture(scope="module")
def images(pictures):
    return ("data=folder", f"data.root={pictures}", "data.image_size=[16,24]", "model.patch_size=4",
            "data.batch_size=8", *TINY, "schedule.max_steps=5", "callbacks.checkpoint_every_steps=2",
            "callbacks.checkpoint_keep=9", "callbacks.evaluate_every_epochs=1", "callbacks.pictures=2",
            "schedule.momentum.start=0.9", "callbacks.health_every_steps=2", "callbacks.health_images=16")  # fmt: skip


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """The same run in one process, and in two of each strategy."""
    parent = tmp_path_factory.mktemp("ranks")
    for name, hardware in (("single", ()), ("ddp", DDP), ("fsdp", FSDP)):
        result = command("train.py", *images, *hardware, f"run_dir={parent / name}")
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("run_dir") == 2  # said by one process
    return parent


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [(row["step"], float(row["train/loss"])) for row in csv.DictReader(file) if row["train/loss"]]


def assert_same_run(one, other, atol=1e-6):
    assert [step for step, _ in losses(one)] == [step for step, _ in losses(other)] == ["1", "2", "3", "4", "5"]
    assert [loss for _, loss in losses(one)] == pytest.approx([loss for _, loss in losses(other)], abs=2e-6)
    saved = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other)]
    assert_same(saved[0]["state_dict"], saved[1]["state_dict"], atol=atol, rtol=0)
    states = [contents["optimizer_states"][0]["state"] for contents in saved]
    assert states[0].keys() == states[1].keys()
    for name, state in states[0].items():
        assert_same(state, states[1][name], atol=atol, rtol=0)
    assert_same(*(load_file(run / "encoder.safetensors") for run in (one, other)), atol=atol, rtol=0)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_equal_one(runs, strategy):
    assert_same_run(runs / "single", runs / strategy)
    names = {path.name for path in (runs / strategy).iterdir()}
    assert names == {"config.yaml", "metrics.csv", "checkpoints", "encoder.safetensors", "health.json", "summary.json",
                     "pictures"}  # fmt: skip
    with (runs / strategy / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/knn20"]] == ["3", "5"]
    one, other = (
        torch.load(runs / run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Pictures"]
        for run in ("single", strategy)
    )
    assert list(one["drawn"]) == list(other["drawn"]) == [0, 2, 5]
    torch.testing.assert_close(one["reference"], other["reference"], atol=1e-2, rtol=0)  # the same colours
    assert len(list((runs / strategy / "pictures" / "features").iterdir())) == 3


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_are_as_healthy_as_one(runs, strategy):
    looks = []
    for name in ("single", strategy):
        with (runs / name / "metrics.csv").open() as file:
            looks.append([row for row in csv.DictReader(file) if row["health/rankme"]])
    assert [row["step"] for row in looks[0]] == [row["step"] for row in looks[1]] == ["0", "2", "4", "5"]
    for one, other in zip(*looks, strict=True):
        for name in (name for name in one if name.startswith("health/") and name != "health/verdict"):
            least = 1e-4 if name == "health/correlation" else 1e-6  # of predictions that hardly differ yet
            assert float(one[name] or 0) == pytest.approx(float(other[name] or 0), rel=1e-4, abs=least), name


@pytest.mark.parametrize(("hardware", "on"), [(DDP, "tokens"), (FSDP, "context")], ids=["ddp", "fsdp"])
def test_regularisers_see_the_whole_batch(images, runs, tmp_path, hardware, on):
    """The variance of four images is not that of eight; where a gradient is nothing but rounding, AdamW shows it."""
    arguments = [*images, "objective=variance_covariance", f"objective.regularize={on}"]
    for name, processes in (("one", ()), ("two", hardware)):
        result = command("train.py", *arguments, *processes, f"run_dir={tmp_path / name}")
        assert result.returncode == 0, result.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two", atol=1e-5)
    assert losses(tmp_path / "one") != losses(runs / "single")


def test_target_statistics_see_the_whole_batch(images, tmp_path):
    arguments = [*images, "objective.target_depths=[0,1]", "objective.standardize_targets=true"]
    for name, processes in (("single", ()), ("ddp", DDP), ("fsdp", FSDP)):
        result = command("train.py", *arguments, *processes, f"run_dir={tmp_path / name}")
        assert result.returncode == 0, result.stderr
    for name in ("ddp", "fsdp"):
        assert_same_run(tmp_path / "single", tmp_path / name, atol=1e-5)


POISON = """
import os
import torch
from torch import nn

class Poison(nn.Module):
    \"\"\"Makes the loss of the last process NaN in the second step, with gradients that are finite.\"\"\"
    def __init__(self, **sizes):
        super().__init__()
        self.calls = 0

    def forward(self, outputs):
        self.calls += 1
        last = int(os.environ.get("LOCAL_RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
        return 0 * outputs.predictions.sum() + (float("nan") if last and self.calls == 2 else 0.0)
"""


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_all(images, tmp_path, optimizer):
    (tmp_path / "poison.py").write_text(POISON)
    values = [*images, f"optimizer={optimizer}", "+objective.terms.poison._target_=poison.Poison"]
    saved = []
    for name, processes in (("single", ()), ("ddp", DDP), ("fsdp", FSDP)):
        folder = tmp_path / name
        result = command("train.py", *values, *processes, f"run_dir={folder}", PYTHONPATH=str(tmp_path))
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("skipped: step 2: loss or gradients not finite (1 so far)") == 1
        assert json.loads((folder / "summary.json").read_text())["skipped_steps"] == 1
        saved.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))
    for contents in saved[1:]:
        assert_same(saved[0]["state_dict"], contents["state_dict"], atol=1e-6, rtol=0)
        assert contents["skipped_steps"] == {"total": 1, "in_a_row": 0}


def test_muon_on_two_ranks(images, tmp_path):
    for name, processes in (("single", ()), ("ddp", DDP), ("fsdp", FSDP)):
        result = command("train.py", *images, "optimizer=muon", *processes, f"run_dir={tmp_path / name}")
        assert result.returncode == 0, result.stderr
    for name in ("ddp", "fsdp"):
        assert_same_run(tmp_path / "single", tmp_path / name)


def test_an_encoder_of_timm_s_under_fsdp(images, tmp_path):
    encoder = ("model=timm", "model.name=vit_tiny_patch16_224", "model.patch_size=4", "callbacks.pictures=null")
    for name, processes in (("single", ()), ("two", FSDP)):
        result = command("train.py", *images, *encoder, *processes, f"run_dir={tmp_path / name}")
        assert result.returncode == 0, result.stderr
    assert_same_run(tmp_path / "single", tmp_path / "two")


@pytest.mark.parametrize(
    ("begun", "hardware"),
    [
        ("ddp", FSDP),
        ("fsdp", DDP),
        ("ddp", ("hardware.strategy=single", "hardware.devices=1")),
        ("fsdp", ("hardware.strategy=single", "hardware.devices=1", "hardware.accumulation=2")),
        ("single", FSDP),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].removeprefix("hardware.strategy="),
)
def test_a_run_goes_on_with_other_processes(runs, tmp_path, begun, hardware):
    """From the checkpoint after two steps, under another strategy or number of processes."""
    folder = tmp_path / "run"
    shutil.copytree(runs / begun, folder)
    before = (folder / "config.yaml").read_text()
    for later in ("encoder.safetensors", "summary.json"):
        (folder / later).unlink()
    result = command("train.py", f"resume={folder / 'checkpoints' / 'step-000002.ckpt'}", *hardware)
    assert result.returncode == 0, result.stderr
    assert_same_run(runs / "single", folder)
    assert (folder / "config.yaml").read_text() == before
    assert not list(folder.glob("config-*.yaml"))


def torchrun(*arguments):
    launcher = [preloaded.python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, str(ROOT / "train.py"), *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_torchrun(images, runs, tmp_path):
    """One folder for both processes; without a name for it they could not agree."""
    folder = tmp_path / "run"
    result = torchrun(*images, *FSDP, f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    assert_same_run(runs / "single", folder)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert result.stdout.count("run_dir") == 2


def test_a_sweep_under_torchrun(images, runs, tmp_path):
    """Every process goes through the jobs; the first keeps the sweep's folder, and says what there is to say."""
    result = torchrun("-m", *images, *DDP, "seed=0,1", f"run_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("2 jobs, the best mean headline first") == 1
    with (tmp_path / "sweep.csv").open() as file:
        assert [(row["job"], row["status"]) for row in csv.DictReader(file)] == [
            ("seed-0", "finished"), ("seed-1", "finished")
        ]  # fmt: skip
    assert_same_run(runs / "single", tmp_path / "seed-0")


@pytest.mark.parametrize("hardware", [DDP, FSDP], ids=["ddp", "fsdp"])
def test_a_signal_to_the_first_process_ends_both_saved(images, tmp_path, hardware):
    folder = tmp_path / "run"
    arguments = [*images, "schedule.max_steps=100000", *hardware, f"run_dir={folder}"]
    process = subprocess.Popen(
        [preloaded.python(), ROOT / "train.py", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    metrics = folder / "metrics.csv"  # begins with the health check before the first step
    while not (metrics.exists() and "train/loss" in metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, error
    assert error.count(f"resume={folder}") == 1
    assert output.splitlines()[-1] == f"run_dir {folder}"
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert losses(folder)[-1][0] == str(saved["global_step"])


@pytest.mark.parametrize("delay", [0.5, 3])
def test_ctrl_c_before_the_processes_have_met(images, tmp_path, delay):
    """Which all of them get; the first one waits for the others in C++, where no handler runs."""
    arguments = [*images, "schedule.max_steps=100000", *DDP, f"run_dir={tmp_path / 'run'}"]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *arguments], start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    for line in process.stdout:
        if line.startswith("steps "):
            break
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, error
    assert "Traceback" not in error
    assert error.splitlines()[-1] == "stopped before the first step"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # none is left


def test_checkpoints_by_the_clock_are_written_once(images, tmp_path):
    """Here every step is late; what one step's lag makes both hear twice is written once."""
    folder = tmp_path / "run"
    clock = ("callbacks.checkpoint_every_steps=null", "callbacks.checkpoint_every_minutes=0.000001",
             "callbacks.health_every_steps=null")  # fmt: skip
    result = command("train.py", *images, *clock, "callbacks.evaluate_every_epochs=null", *DDP, f"run_dir={folder}")
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["last.ckpt", "step-000002.ckpt", "step-000004.ckpt", "step-000005.ckpt"]


def test_an_evaluation_on_two_devices_is_that_on_one(tmp_path):
    """Each sees half of the images, in batches that are as large together; probes and networks are the same ones."""
    images = ("checkpoint=random", "data=digits", "data.image_size=16", "data.val_fraction=.8", "model.width=24",
              "model.heads=3", "model.depth=2", "hardware.accelerator=cpu", "cache=null")  # fmt: skip
    probes = ("task=[linear,attentive,finetune,knn]", "layers=2", "task.linear.layers=[1,2]", "task.linear.epochs=4",
              "task.linear.batch_size=32", "task.attentive.epochs=4", "task.attentive.batch_size=32",
              "task.finetune.epochs=4", "task.finetune.warmup_epochs=1", "task.finetune.batch_size=32",
              "task.finetune.drop_path=0")  # fmt: skip
    found = []
    for name, hardware in (("one", ()), ("two", DDP)):
        result = command("evaluate.py", *images, *probes, f"output={tmp_path / name}", *hardware)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count("written") == 5  # said by one process: metrics, the network and three classifiers
        result = command("evaluate.py", *images, "task=features", f"output={tmp_path / name / 'features'}", *hardware)
        assert (result.returncode, result.stderr) == (0, "")
        found.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    one, two = found
    for row in one["results"]:
        assert one["results"][row] == pytest.approx(two["results"][row], abs=0.005)  # images at a border between two
    exported = [np.load(tmp_path / name / "features" / "features.npz") for name in ("one", "two")]
    assert exported[0]["name"].tolist() == exported[1]["name"].tolist()
    np.testing.assert_allclose(exported[0]["features"], exported[1]["features"], atol=1e-6)
    first, second = (load_file(tmp_path / name / "finetuned-random-init.safetensors") for name in ("one", "two"))
    spec = load_encoder(tmp_path / "one" / "finetuned-random-init.safetensors").spec
    start = untrained_encoder(spec, 0).encoder.state_dict()
    moved = max((first[name] - tensor).abs().max().item() for name, tensor in start.items())
    apart = max((first[name] - second[name]).abs().max().item() for name in start)
    assert apart < 0.05 * moved  # Adam's steps are as long where a gradient is all rounding
