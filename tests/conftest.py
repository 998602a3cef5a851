import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from safetensors.torch import load_file

from ijepa.cli import entry
from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.data import statistics
from ijepa.run import build, runs

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory):
    if "PYTEST_XDIST_WORKER" in os.environ:  # beside others: one thread, here and in the processes that tests start
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    else:
        torch.set_num_threads(min(2, os.cpu_count() or 1))
    os.environ["IJEPA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


DISTRIBUTED = {"hardware=ddp", "hardware=fsdp", "hardware.strategy=ddp", "hardware.strategy=fsdp"}


def composed(*overrides, name="train"):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, list(overrides))


def train_config(*overrides):
    return parse(TrainConfig, composed(*overrides))


def command(script, *arguments, cwd=ROOT, **environment):
    """A command as a user types it."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "WANDB_MODE": "offline", **environment},
        timeout=300,
    )


SMALL = (
    "objective=l2",
    "data=digits",
    "hardware=cpu",
    "hardware.precision=32-true",
    "model.width=24",
    "model.depth=2",
    "predictor.width=12",
    "predictor.depth=1",
    "data.batch_size=16",
    "schedule.max_steps=4",
    "schedule.warmup_steps=1",
    "callbacks.log_every_steps=1",
    "callbacks.evaluate_every_epochs=null",
    "callbacks.health_every_steps=null",
    "callbacks.pictures=null",
)


def fit(folder, *overrides, last=None, stop=None):
    run = build.run(train_config(*SMALL, *overrides), folder)
    if stop is not None:
        run.trainer.fit_loop.epoch_loop.max_steps = stop
    run.trainer.fit(run.module, run.data, ckpt_path=last, weights_only=True)
    return run


def weights(run):
    return {name: tensor.clone() for name, tensor in run.module.jepa.state_dict().items()}


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


TINY = (
    "objective=l2",
    "hardware=cpu", "hardware.precision=32-true", "model.width=24", "model.depth=2", "predictor.width=12",
    "predictor.depth=1", "data.workers=0",
    "schedule.max_steps=3", "schedule.warmup_steps=1", "callbacks.log_every_steps=1",
    "callbacks.health_every_steps=null",
    "callbacks.pictures=null",
)  # fmt: skip

EXACT = {"atol": 0, "rtol": 0}


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def trace():
    return load_file(REFERENCE / "trace.safetensors"), json.loads((REFERENCE / "trace.json").read_text())


@pytest.fixture(scope="session")
def checkpoint_file():
    return REFERENCE / "checkpoint.pth.tar"


def picture(seed, height, width, channels=3):
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, channels), dtype=np.uint8)
    image = Image.fromarray(noise[..., 0] if channels == 1 else noise)
    return image.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two classes of 12 pictures in train/ and 4 in val/, warm and cold ones."""
    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 12), ("val", 4)):
        for label, tint in enumerate(("cold", "warm")):
            folder = root / part / tint
            folder.mkdir(parents=True)
            for i in range(count):
                array = np.asarray(picture(100 * label + i, 40, 52)).astype(np.float32)
                array[..., 2 - 2 * label] = array[..., 2 - 2 * label] / 2 + 127
                Image.fromarray(array.astype(np.uint8)).save(folder / f"{part}-{i}.png")
    return root


@pytest.fixture
def invoke(monkeypatch, capsys):
    """A command in this process: its exit code, standard output and standard error."""

    def run(script, *arguments):
        from ijepa.run import evaluations

        assert not (script == "evaluate.py" and DISTRIBUTED & set(map(str, arguments))), "starts the tests once more"
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        job = {"train.py": runs.train, "evaluate.py": evaluations.evaluate, "statistics": statistics.statistics}[script]
        code = 0
        try:
            entry.main(script.removesuffix(".py"), job)
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
