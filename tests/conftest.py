import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file

from ijepa.checks import parse
from ijepa.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session", autouse=True)
def _threads():
    torch.set_num_threads(min(2, os.cpu_count() or 1))


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
