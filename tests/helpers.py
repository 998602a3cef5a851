"""What many tests share: small configurations, commands, and comparisons."""

import csv
import os
import subprocess
from pathlib import Path

import numpy as np
import preloaded
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.evaluation.features import Features
from ijepa.models.encoder import Encoder
from ijepa.run import build
from ijepa.run_folder import SweepFolder

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = Path(__file__).parent / "reference"
DISTRIBUTED = {"hardware=ddp", "hardware=fsdp", "hardware.strategy=ddp", "hardware.strategy=fsdp"}


def composed(*overrides, name="train"):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, list(overrides))


def train_config(*overrides):
    return parse(TrainConfig, composed(*overrides))


def command(script, *arguments, cwd=ROOT, **environment):
    """A command as a user types it, in a process of its own."""
    return subprocess.run(
        [preloaded.python(), str(ROOT / script), *map(str, arguments)],
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
    "callbacks.baselines=false",
    "task=knn",
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
    "callbacks.pictures=null", "callbacks.baselines=false", "task=knn",
)  # fmt: skip


EXACT = {"atol": 0, "rtol": 0}


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def picture(seed, height, width, channels=3):
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, channels), dtype=np.uint8)
    image = Image.fromarray(noise[..., 0] if channels == 1 else noise)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def small_encoder(image_size=(24, 40), patch=8, channels=5, width=24, depth=2, heads=3, **rest):
    torch.manual_seed(0)
    return Encoder(image_size, patch, channels, width, depth, heads, 4.0, **rest)


# A short run that measures, draws and evaluates, for loggers to log
LOGGED = ("data=digits", *TINY, "logger=wandb", "logger.mode=offline", "callbacks.health_every_steps=2",
         "callbacks.health_images=32", "callbacks.pictures=1")  # fmt: skip


def blobs(count, seed, spread=1.5, classes=4, width=12):
    """Features of normally distributed classes, with two label sets."""
    centres = np.random.default_rng(0).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    values = centres[labels] + spread * rng.normal(size=(count, width))
    sets = {"class": torch.tensor(labels), "parity": torch.tensor(labels % 2)}
    return Features(torch.tensor(values, dtype=torch.float32), sets, torch.arange(count))


# A job of a sweep
DIGITS = ("data=digits", *TINY, "task.knn.k=[5]", "task.knn.headline=5")


def listed(folder):
    """A sweep's table."""
    with SweepFolder(folder).table.open(newline="") as file:
        return list(csv.DictReader(file))


def reference_name(name):
    """Our parameter's name -> the reference's."""
    network, _, rest = name.partition(".")
    if network != "predictor":
        return {"context_encoder": "encoder"}.get(network, network) + "." + rest
    return f"predictor.{rest}" if rest == "mask_token" else f"predictor.predictor_{rest}"
