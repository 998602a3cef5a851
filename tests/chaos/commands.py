"""Evaluations, predictions, conversions and reports that get signals at any moment, and are then run again."""

import contextlib
import csv
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from helpers import ROOT
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from chaos.stops import LIMIT, signal_group, undisturbed

EARLIEST, SOON = 0.2, 20
"""Seconds until the first signal, and until a command must have ended after one."""


class Command(NamedTuple):
    """A command that writes to ``out``.

    arguments: from the folder that it writes to.
    result: what it has written there, to compare.
    """

    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], Any]


@functools.cache
def images() -> Path:
    folder = Path(tempfile.mkdtemp())
    for index, pixels in enumerate(load_digits().images[:300]):
        Image.fromarray((pixels * 15).astype(np.uint8)).resize((32, 32)).save(folder / f"{index:04}.png")
    return folder


@functools.cache
def expected(name: str) -> tuple[Any, float]:
    """What a command writes if nothing stops it, and how many seconds it takes."""
    folder = Path(tempfile.mkdtemp())
    begun = time.monotonic()
    finish(name, folder)
    seconds = time.monotonic() - begun
    return COMMANDS[name].result(folder / "out"), seconds


@functools.cache
def classifier() -> Path:
    folder = Path(tempfile.mkdtemp())
    finish("evaluate", folder)
    return folder / "out" / "classifier-logistic.safetensors"


def evaluated(out: Path) -> Any:
    return json.loads((out / "metrics.json").read_text())["results"]


def predicted(out: Path) -> Any:
    with (out / "p.csv").open(newline="") as file:
        return list(csv.reader(file))


def converted(out: Path) -> Any:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(out / "e.safetensors").items()}


COMMANDS = {
    "evaluate": Command(
        lambda out: ["evaluate.py", f"checkpoint={undisturbed()}", "task=[knn,linear,logistic]", f"output={out}",
                     "task.linear.epochs=5", "task.linear.milestones=null", "task.linear.layers=[1]",
                     f"cache={out.parent / 'cache'}"], evaluated),
    "predict": Command(
        lambda out: ["predict.py", f"checkpoint={classifier()}", f"data.root={images()}", f"output={out / 'p.csv'}",
                     "data.batch_size=1", "data.workers=1"], predicted),
    "convert": Command(
        lambda out: ["-m", "ijepa.interop", "convert", str(undisturbed()), str(out / "e.safetensors"), "--to",
                     "safetensors", "--overwrite"], converted),
    "report": Command(
        lambda out: ["-m", "ijepa.report", str(undisturbed()), "--out", str(out / "r.html")],
        lambda out: (out / "r.html").read_text()),
}  # fmt: skip


def start(name: str, folder: Path) -> subprocess.Popen[str]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *COMMANDS[name].arguments(out)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def finish(name: str, folder: Path) -> None:
    process = start(name, folder)
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, (name, error)


def case(seed: int, folder: Path) -> None:
    """SIGTERM or SIGINT, for the process or its group, or both at once as by `timeout`."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(list(COMMANDS)))
    result, seconds = expected(name)
    number = signal.SIGTERM if rng.random() < 0.5 else signal.SIGINT
    process = start(name, folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=float(rng.uniform(EARLIEST, max(seconds, EARLIEST))))
    if process.poll() is None:
        way = rng.integers(3)
        if way != 1:
            process.send_signal(number)
        if way != 0:
            signal_group(process, number)
    _, error = process.communicate(timeout=SOON)
    assert process.returncode in (0, -number, 128 + number), (name, process.returncode, error)
    assert "Traceback" not in error, (name, error)
    left = sorted(path.name for path in (folder / "out").iterdir() if path.name.startswith("."))
    assert not [each for each in left if not each.startswith(".p.csv.")], (name, left)  # an unfinished table
    if process.returncode and not (folder / "out" / "p.csv").exists():  # a complete table is not written again
        finish(name, folder)
    assert COMMANDS[name].result(folder / "out") == result, name
    assert not [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")], name
