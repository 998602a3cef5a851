"""Fixtures."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from helpers import DISTRIBUTED, REFERENCE, TINY, command, picture
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from safetensors.torch import load_file

from ijepa.cli import entry
from ijepa.data import statistics
from ijepa.run import runs


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory):
    if "PYTEST_XDIST_WORKER" in os.environ:  # beside others: one thread, here and in the processes that tests start
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    else:
        torch.set_num_threads(min(2, os.cpu_count() or 1))
    os.environ["IJEPA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def trace():
    return load_file(REFERENCE / "trace.safetensors"), json.loads((REFERENCE / "trace.json").read_text())


@pytest.fixture(scope="session")
def checkpoint_file():
    return REFERENCE / "checkpoint.pth.tar"


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
