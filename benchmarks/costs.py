"""Do costs grow as they should? Step time, memory, start and checkpoints against what they depend on, with exponents.

python -m benchmarks.costs [--threads N] [--precision bf16-mixed] [--files 1000 10000 100000]

An exponent is the slope of a straight line through the logarithms: 1 is proportional. Beside the exponent of the step's
time is that of its FLOPs, which includes the optimiser's. Each setting has a process of its own, and its memory is the
process's peak in steps less what it held before the networks were built.
"""

import argparse
import csv
import logging
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

from benchmarks.step import Ours, _peak
from ijepa import compose_config
from ijepa.data import sources
from ijepa.data.files import Files
from ijepa.data.loader import Loader, batched
from ijepa.run import build

BASE = {"data.batch_size": 32, "data.image_size": 32, "model.width": 192, "model.depth": 6}
RECIPE = ["experiment=small_images", "data=cifar10", "model=vit_micro", "model.patch_size=4", "predictor.width=96",
          "objective.target_depths=[0,2]"]  # fmt: skip
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "images per step": ("data.batch_size", (8, 16, 32, 64)),
    "patches per image": ("data.image_size", (16, 32, 48, 64)),
    "width": ("model.width", (96, 192, 384)),
    "blocks": ("model.depth", (3, 6, 12)),
}
STEPS, WARMUP = 5, 2
WORKERS, BATCH = 4, 1000
RUN_STEPS, TURNS = 120, 3
MOST_LINKS = 10_000
"""Names of one file; ext4 allows 65,000."""


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the straight line through the logarithms."""
    return float(np.polyfit([math.log(size) for size in sizes], [math.log(cost) for cost in costs], 1)[0])


def step(key: str, value: int, precision: str, threads: int) -> tuple[float, float, int]:
    """Median seconds and FLOPs of a step, and its peak memory in bytes."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    held = _peak(device)
    settings = [f"{name}={size}" for name, size in {**BASE, key: value}.items()]
    ours = Ours([*RECIPE, *settings], precision, device)
    batches, taken, flops = ours.batches(), [], 0.0
    for number in range(WARMUP + STEPS):
        images, masks = next(batches)
        started = ours._now()
        ours.step(images, masks)
        if number >= WARMUP:
            taken.append(ours._now() - started)
            flops += ours.flops(masks) / STEPS
    return statistics.median(taken), flops, max(_peak(device) - held, 1)


def opening(folder: Path, files: int) -> tuple[float, int]:
    """Seconds to open a folder of ``files`` images, and bytes that its paths take."""
    held = _peak(torch.device("cpu"))
    started = time.perf_counter()
    config = compose_config("data=folder", f"data.root={folder}", "data.image_size=32", "model.patch_size=4")
    source = sources.build(config.data, 0)
    assert len(source.train) + len(source.val) == files
    return time.perf_counter() - started, max(_peak(torch.device("cpu")) - held, 1)


class Names(Dataset[str]):
    """The names of image files, which need not exist."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __getitem__(self, index: int) -> str:
        return self.files.name(index)


def sharing(paths: int) -> float:
    """MiB of the main process and `WORKERS` data loader processes, after these have read all ``paths``.

    Memory that processes share counts once (Linux: the proportional set size).
    """
    multiprocessing.set_start_method("fork", force=True)  # as in training on Linux; `alone` has changed it
    labels = {"class": [number % 1000 for number in range(paths)]}
    files = Files([f"/images/train/n{number % 1000:08}/n{number:012}.jpeg" for number in range(paths)], labels, 3, None)
    loader, total = Loader(Names(files), batched(paths, BATCH), WORKERS, list), 0.0
    for number, _ in enumerate(loader):
        if number == (paths - 1) // BATCH:
            processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            total = sum(_pss(process) for process in processes if process is not None)
    return total


def _pss(process: int) -> float:
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def rate(devices: int) -> float:
    """Images/s of whole runs on ``devices`` processes with a thread each; batches grow with them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "experiment=small_images", "data=digits", "hardware=cpu",
                   "objective.target_depths=[0,2]", "model.width=192", "predictor.width=96",
                   f"data.batch_size={64 * devices}", f"schedule.max_steps={RUN_STEPS}", "schedule.warmup_steps=1",
                   "callbacks.health_every_steps=null", "callbacks.pictures=null", "callbacks.log_every_steps=10",
                   "callbacks.evaluate_every_epochs=null", f"run_dir={folder}/run"]  # fmt: skip
        command += [f"hardware.devices={devices}", "hardware.strategy=ddp"] if devices > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        with (Path(folder) / "run" / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["seconds"] and float(row["step"]) >= RUN_STEPS / 3]
    first, last = rows[0], rows[-1]
    return (float(last["images"]) - float(first["images"])) / (float(last["seconds"]) - float(first["seconds"]))


def _unconnected() -> float:
    """Images/s of two runs of one process each, at the same time: what the machine has for two."""
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(rate, (1, 1)))


def checkpoint(width: int) -> tuple[float, int, int]:
    """Seconds that a checkpoint of a run takes, its bytes, and those of the trained parameters."""
    for module in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(module).setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name:
        warnings.simplefilter("ignore")
        config = compose_config(
            "experiment=small_images", "data=digits", "objective.target_depths=[0,2]", f"model.width={width}",
            "hardware=cpu", "schedule.max_steps=1", "schedule.warmup_steps=0", "data.batch_size=16",
            "callbacks.health_every_steps=null", "callbacks.pictures=null", "callbacks.evaluate_every_epochs=null",
        )  # fmt: skip
        run = build.run(config, Path(name))
        run.data.source.prepare()
        run.trainer.fit(run.module, run.data)
        started = time.perf_counter()
        path = Path(name) / "again.ckpt"
        run.trainer.save_checkpoint(path, weights_only=False)
        trained = sum(p.numel() * p.element_size() for p in run.module.parameters() if p.requires_grad)
        return time.perf_counter() - started, path.stat().st_size, trained


def alone(job: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``job`` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # may start processes itself
        return pool.submit(job, *arguments).result()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="bf16-mixed")
    parser.add_argument("--files", nargs="+", type=int, default=[1000, 10_000, 100_000])
    values = parser.parse_args()
    console = Console(width=120)
    table = Table("against", "values", "ms per step", "exponent", "of FLOPs", "memory, MiB", "exponent")
    for name, (key, sizes) in AXES.items():
        seconds, flops, memory = zip(*(alone(step, key, size, values.precision, values.threads) for size in sizes),
                                     strict=True)  # fmt: skip
        shown = [(size // 4) ** 2 for size in sizes] if key == "data.image_size" else list(sizes)
        table.add_row(name, ", ".join(map(str, shown)), ", ".join(f"{1000 * value:.0f}" for value in seconds),
                      f"{exponent(shown, seconds):.2f}", f"{exponent(shown, flops):.2f}",
                      ", ".join(f"{value / 2**20:.0f}" for value in memory),
                      f"{exponent(shown, memory):.2f}")  # fmt: skip
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {values.threads} threads"
    console.print(f"{where}, {values.precision}", table, sep="\n")
    files = Table("image files", "s to open", "MiB of memory")
    with tempfile.TemporaryDirectory() as name:
        folder, made = Path(name), 0
        for label in ("a", "b"):
            (folder / label).mkdir()
        for count in sorted(values.files):
            for number in range(made, count):
                path = folder / "ab"[number % 2] / f"{number:08}.png"
                if number % MOST_LINKS == 0:
                    Image.new("RGB", (32, 32)).save(path)
                    source = path
                else:
                    path.hardlink_to(source)
            made = count
            seconds, memory = alone(opening, folder, count)
            files.add_row(str(count), f"{seconds:.2f}", f"{memory / 2**20:.0f}")
    shared = Table("paths", f"MiB of the main process and {WORKERS} data loader processes")
    for count in (1000, 1_000_000):
        shared.add_row(str(count), f"{alone(sharing, count):.0f}")
    ranks = Table("processes", "images/s, median", "ratio, median (range)")
    turns = [(rate(1), rate(2), _unconnected()) for _ in range(TURNS)]
    titles = ("one", "two, connected", "two runs beside each other")
    for title, rates in zip(titles, zip(*turns, strict=True), strict=True):
        ratios = sorted(other / turn[0] for other, turn in zip(rates, turns, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        ranks.add_row(title, f"{statistics.median(rates):.0f}", spread)
    saved = Table("width", "ms to save a checkpoint", "MiB", "times the trained parameters")
    for width in (96, 192, 384):
        seconds, size, trained = alone(checkpoint, width)
        saved.add_row(str(width), f"{1000 * seconds:.0f}", f"{size / 2**20:.1f}", f"{size / trained:.2f}")
    console.print(files, shared, ranks, saved, sep="\n")


if __name__ == "__main__":
    main()
