"""A module that is not I-JEPA's passes through the same run: trained, stopped, resumed, watched, drawn, reported."""

import json
import shutil
import signal

import pytest
import torch
from helpers import EXACT, ROOT, TINY, assert_same, command, rows
from safetensors.torch import load_file

from ijepa.report.command import main as report

pytestmark = pytest.mark.slow

STEPS = (*TINY, "data=digits", "data.batch_size=16", "schedule.max_steps=6", "model.width=8", "optimizer.lr=0.1",
         "callbacks.health_every_steps=3", "callbacks.health_images=32", "callbacks.pictures=2",
         "callbacks.checkpoint_every_steps=2")  # fmt: skip
HARDWARE = {"one": (), "two": ("hardware.strategy=ddp", "hardware.devices=2")}
SHARDED = ("hardware.strategy=fsdp", "hardware.devices=2")
CLOCKS = ("seconds", "images_per_second")


def autoencoder(*arguments, **environment):
    return command("tests/autoencoder.py", *arguments, PYTHONPATH=str(ROOT), **environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts, of one process and of two: folder and output."""
    parent, found = tmp_path_factory.mktemp("whole"), {}
    for name, hardware in HARDWARE.items():
        result = autoencoder(*STEPS, *hardware, f"run_dir={parent / name}")
        assert result.returncode == 0, result.stderr
        found[name] = parent / name, result.stdout
    return found


def table(folder):
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows(folder)]


def checkpoint(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("processes", HARDWARE)
def test_it_is_trained_and_watched(whole, processes):
    folder, output = whole[processes]
    found = rows(folder)
    losses = [float(row["train/loss"]) for row in found if row["train/loss"]]
    assert len(losses) == 6
    assert losses[-1] < 0.9 * losses[0]
    assert [row["step"] for row in found if row["health/rankme"]] == ["0", "3", "6"]
    assert float(found[-1]["flops"]) == 6 * 16 * 5 * 2 * (32 * 32) * 8  # weights of a layer see each pixel once
    assert not {"momentum", "train/distance", "health/encoder_distance", "val/knn20"} & found[0].keys()
    assert "trained parameters" in output
    assert "masks " not in output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["loss"] == pytest.approx(losses[-1])
    assert "results" not in summary
    exported = load_file(folder / "autoencoder.safetensors")
    assert_same(exported, checkpoint(folder)["state_dict"], **EXACT)
    assert not (folder / "encoder.safetensors").exists()


@pytest.mark.parametrize("processes", HARDWARE)
def test_it_is_drawn_and_reported(whole, processes, tmp_path):
    folder, _ = whole[processes]
    drawn = {str(path.relative_to(folder / "pictures")) for path in (folder / "pictures").rglob("*.png")}
    assert drawn == {"curves.png", "progress.png", *(f"features/step-{step:06}.png" for step in (0, 3, 6))}
    assert report([str(folder), "--out", str(tmp_path / "report.html")]) in (0, None)
    page = (tmp_path / "report.html").read_text()
    assert "RankMe" in page
    assert page.count("data:image/png") >= 5


@pytest.mark.parametrize("processes", HARDWARE)
def test_it_resumes_exactly_after_a_signal(whole, processes, tmp_path):
    straight, _ = whole[processes]
    folder = tmp_path / "run"
    stopped = autoencoder(*STEPS, *HARDWARE[processes], f"run_dir={folder}", STOP_AFTER="3")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert f"resume={folder}" in stopped.stderr
    assert 3 <= checkpoint(folder)["global_step"] < 6
    resumed = autoencoder(f"resume={folder}")
    assert resumed.returncode == 0, resumed.stderr
    one, other = checkpoint(straight), checkpoint(folder)
    assert_same(one["state_dict"], other["state_dict"], **EXACT)
    moments = [saved["optimizer_states"][0]["state"] for saved in (one, other)]
    for name, state in moments[0].items():
        assert_same(state, moments[1][name], **EXACT)
    assert table(straight) == table(folder)


def test_it_resumes_under_another_strategy(whole, tmp_path):
    straight, _ = whole["one"]
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    resumed = autoencoder(f"resume={folder / 'checkpoints' / 'step-000004.ckpt'}", *SHARDED)
    assert resumed.returncode == 0, resumed.stderr
    for other in (folder, whole["two"][0]):
        one, weights = (checkpoint(run)["state_dict"] for run in (straight, other))
        assert_same(one, weights, atol=1e-6, rtol=0)
