"""Fixtures; and which tests run when (CONTRIBUTING.md has the tiers)."""

import json
import os
import shutil
import signal
import subprocess
import sys

import lightning as L
import numpy as np
import pytest
import torch
from helpers import DISTRIBUTED, REFERENCE, TINY, command, picture
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from safetensors.torch import load_file

from ijepa.cli import entry, statistics, verify
from ijepa.run import runs

IMPLIED = {"invoke": "integration", "finished": "slow"}  # by what a test asks for
TIERS = {"integration", "slow", "gpu"}


def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, tier in IMPLIED.items():
            if fixture in item.fixturenames:
                item.add_marker(tier)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU that CUDA sees"))


@pytest.fixture(autouse=True)
def _unit_tests_stay_fast(request, monkeypatch):
    """A test of no tier neither trains nor starts a process."""
    if TIERS.isdisjoint(mark.name for mark in request.node.iter_markers()):

        def wrong(*_, **__):
            pytest.fail("trains or starts a process: mark it integration or slow")

        monkeypatch.setattr(L.Trainer, "fit", wrong)
        monkeypatch.setattr(subprocess.Popen, "__init__", wrong)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory):
    if "PYTEST_XDIST_WORKER" in os.environ:  # beside others: one thread, here and in the processes that tests start
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    else:
        threads = int(os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1))))
        torch.set_num_threads(threads)  # bits depend on the number
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
def mapped(pictures, tmp_path):
    """Pictures with depth, their red values in millimetres, and classes, whether red exceeds blue."""
    for part in sorted(pictures.rglob("*.png")):
        with Image.open(part) as image:
            values = np.asarray(image).astype(int)
        for name, found in {
            "depth": (1000 + 10 * values[..., 0]).astype(np.uint16),
            "classes": (values[..., 0] > values[..., 2]).astype(np.uint8),
        }.items():
            path = tmp_path / name / part.relative_to(pictures)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(found).save(path)
    return tmp_path


@pytest.fixture
def invoke(monkeypatch, capsys):
    """A command in this process: its exit code, standard output and standard error."""

    def run(script, *arguments):
        from ijepa.run import evaluations, predictions

        assert not (script == "evaluate.py" and DISTRIBUTED & set(map(str, arguments))), "starts the tests once more"
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        job = {"train.py": runs.train, "evaluate.py": evaluations.evaluate, "predict.py": predictions.predict,
               "statistics": statistics.statistics, "verify": verify.verify}[script]  # fmt: skip
        code = 0
        try:
            entry.main(script.removesuffix(".py"), job)
        except SystemExit as error:
            code = error.code
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def _trained(pictures, tmp_path_factory):
    """The folder and output of a run on images that are not square; beside the folder, a copy."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = command("train.py", "data=folder", f"data.root={pictures}", "data.image_size=[16,24]",
                     "model.patch_size=4", "data.batch_size=8", f"run_dir={folder}", *TINY,
                     "callbacks.baselines=true", "callbacks.pictures=1")  # fmt: skip
    assert result.returncode == 0, result.stderr
    shutil.copytree(folder, folder.with_name("copy"))
    return folder, result.stdout


@pytest.fixture(scope="module")
def finished(_trained):
    """A finished run, its folder and output; as the run left it, whatever tests of other files did to it."""
    folder, _ = _trained
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("copy"), folder)
    return _trained


@pytest.fixture
def stopped(invoke, monkeypatch):
    """predict.py, ended by Ctrl-C before the chunk whose first image has this index: standard output."""

    def run(first, *arguments):
        from ijepa.run import predictions

        original = predictions._rows

        def stop(*values):
            if values[3] == first:
                raise KeyboardInterrupt
            return original(*values)

        with monkeypatch.context() as patch:
            patch.setattr(predictions, "_rows", stop)
            code, out, _ = invoke("predict.py", *arguments)
        assert code == 128 + signal.SIGINT
        return out

    return run
