"""A GPU's speed in under eight minutes: one table of tests, steps, memory, input and learning, with date and chip.

bash benchmarks/gpu.sh [--cifar10 FOLDER] [--out FILE] [--seconds 470]

Parts are measured in this order; all but the last end after 60 % of the time, with what they have. The table is written
again after each row. ``--tiny``: the same on any machine, with small sizes, to try the script itself.

- the tests that are marked ``gpu``
- steps at ViT-S, B, L and H, with and without ``hardware.compile``: images/s, FLOP/s and their share of the rate of a
  product of two matrices, peak memory. The compiled numbers are of steps after the compilation, whose seconds are shown
- memory by batch size, without activation checkpointing and with both kinds
- input: images/s that the data loader delivers, from JPEG files of 375x500 pixels on disk and from arrays in memory
- a run on CIFAR-10 (without its folder: on scenes), with its k-NN
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.step import CASES, Checkpointing, Ours, matrix_rate
from ijepa import compose_config
from ijepa.data import sources
from ijepa.data.workers import worker_count
from ijepa.run import build

MIB = 2**20
STEPS, WARMUP = 10, 3
SIZES = {"vit_small": 256, "vit_base": 128, "vit_large": 64, "vit_huge": 32}
TINY = {"default": 2}
LEARNING = 0.4
"""Of all the time, for the run that learns."""
LEARNING_SHARE = 0.6
"""Of the time that is left, for the steps of the last run; the rest is for its start and its evaluation."""
FILES = 256


class Table:
    """Rows of Markdown, written to a file as they come."""

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.lines = path, [f"{title}\n", "| part | settings | result |", "|---|---|---|"]

    def add(self, part: str, settings: str, result: str) -> None:
        self.lines.append(f"| {part} | {settings} | {result} |")
        print(self.lines[-1], flush=True)
        self.path.write_text("\n".join(self.lines) + "\n")


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(prog="bash benchmarks/gpu.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--cifar10", type=Path, metavar="FOLDER", help="a folder per class of CIFAR-10's images")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    parser.add_argument("--seconds", type=float, default=470, help="for everything")
    parser.add_argument("--tiny", action="store_true", help="small sizes, on any machine")
    values = parser.parse_args()
    end = time.monotonic() + values.seconds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not values.tiny:
        sys.exit("error: there is no GPU; try --tiny")
    chip = torch.cuda.get_device_name() if device.type == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = Table(values.out, f"{day}, {chip}, torch {torch.__version__}; `bash benchmarks/gpu.sh`")
    parts: list[Callable[[], Iterator[tuple[str, str, str]]]] = [
        tests,
        lambda: steps(device, TINY if values.tiny else SIZES),
        lambda: memory(device, values.tiny),
        lambda: delivered(values.tiny),
        lambda: learning(values.cifar10, end, values.tiny),
    ]
    for number, part in enumerate(parts, 1):
        last = end - (0 if number == len(parts) else LEARNING * values.seconds)
        if time.monotonic() > last:
            continue
        try:
            for row in part():
                table.add(*row)
                if time.monotonic() > last:
                    break
        except Exception as error:  # one part must not cost the others
            table.add("failed", type(error).__name__, str(error).replace("\n", " ").replace("|", "/")[:300])


def tests() -> Iterator[tuple[str, str, str]]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--no-header", "tests/training/test_gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    yield "tests", "`pytest -m gpu`", done.stdout.strip().splitlines()[-1]


def steps(device: torch.device, sizes: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Speed and memory of steps, in bf16-mixed."""
    for case, batch in sizes.items():
        for compiled in (False, True) if device.type == "cuda" else (False,):
            seconds, flops, peak, started = _steps(case, batch, device, compiled)
            rate = flops / seconds
            share = rate / matrix_rate("bf16-mixed", device)
            first = f", first step after {started:.0f} s" if compiled else ""
            result = (
                f"{batch / seconds:.0f} images/s, {rate / 1e12:.3g} TFLOP/s, {100 * share:.0f} % of the matrix rate"
            )
            yield "step", f"{case}, batch {batch}{', compiled' * compiled}", f"{result}, {peak / MIB:.0f} MiB{first}"


def memory(device: torch.device, tiny: bool) -> Iterator[tuple[str, str, str]]:
    """Peak memory by batch size."""
    case, batches = ("default", (2, 4)) if tiny else ("vit_huge", (16, 32, 64))
    kinds: tuple[Checkpointing, ...] = (False, True, "selective")
    for checkpointing in kinds:
        peaks = [f"{_steps(case, batch, device, False, checkpointing)[2] / MIB:.0f}" for batch in batches]
        settings = f"{case}, batches {', '.join(map(str, batches))}"
        settings += f", checkpointing={checkpointing}" if checkpointing else ""
        yield "memory", settings, f"{', '.join(peaks)} MiB"


def _steps(
    case: str, batch: int, device: torch.device, compiled: bool, checkpointing: Checkpointing = False
) -> tuple[float, float, int, float]:
    """Median seconds and FLOPs of a step, peak memory in bytes, and seconds until the first step was done."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    started = time.perf_counter()
    ours = Ours([*CASES[case], f"data.batch_size={batch}"], "bf16-mixed", device, compiled, checkpointing)
    batches, taken, flops, first = ours.batches(), [], 0.0, 0.0
    for number in range(WARMUP + STEPS):
        images, masks = next(batches)
        before = ours._now()
        ours.step(images, masks)
        after = ours._now()
        first = first or after - started
        if number >= WARMUP:
            taken.append(after - before)
            flops += ours.flops(masks) / STEPS
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return float(np.median(taken)), flops, peak, first


def delivered(tiny: bool) -> Iterator[tuple[str, str, str]]:
    """Images per second of the data loader."""
    with tempfile.TemporaryDirectory() as name:
        draw = np.random.default_rng(0)
        small = draw.integers(0, 255, (16, 24, 32, 3), dtype=np.uint8)
        for number in range(16 if tiny else FILES):
            picture = Image.fromarray(small[number % len(small)]).resize((500, 375), Image.Resampling.BICUBIC)
            picture.save(Path(name) / f"{number:04}.jpg", quality=90)
        batch = 8 if tiny else 256
        files = ["data=folder", f"data.root={name}", "data.image_size=224", "data.val_fraction=0"]
        arrays = ["data=digits"]
        for settings, overrides in (("JPEG files, 375x500", files), ("arrays in memory, 32x32", arrays)):
            config = compose_config(
                *overrides, f"data.batch_size={batch}", "data.workers=null", "schedule.max_steps=40"
            )
            source = sources.build(config.data, 0)
            source.prepare()
            data = build.data(config.data, source, build.sampler(config), 8 if tiny else 40, config.hardware, 0)
            count, begun = 0, 0.0
            for number, images in enumerate(data.train_dataloader()):
                if number == WARMUP:  # workers have started, and have work ahead
                    begun = time.perf_counter()
                count += len(images[0]) * (number > WARMUP)
            workers = worker_count(None, 1)
            speed = count / (time.perf_counter() - begun)
            yield "input", f"{settings}, batch {batch}, {workers} workers", f"{speed:.0f} images/s"


def learning(root: Path | None, end: float, tiny: bool) -> Iterator[tuple[str, str, str]]:
    """A run for the time that is left, and its k-NN."""
    data = ["data=scenes"] if root is None else ["data=folder", f"data.root={root.absolute()}", "data.image_size=32",
            "model.patch_size=4"]  # fmt: skip
    recipe = ["experiment=small_images", *data, "task=knn", "callbacks.baselines=false", "callbacks.pictures=null",
              "callbacks.evaluate_every_epochs=null", "logger=[]"]  # fmt: skip
    if tiny:
        recipe += ["data.scenes.train=64", "data.scenes.val=32"] if root is None else []
    else:
        recipe += ["model.width=192", "predictor.width=96", "optimizer.lr=4e-3", "objective.target_depths=[0,2,4,6]"]
    with tempfile.TemporaryDirectory() as name:
        length = 3 if tiny else 100
        speed = _run(recipe, Path(name) / "short", length)["images_per_second"]
        batch = compose_config(*recipe).data.batch_size
        if not tiny:
            length = max(int(LEARNING_SHARE * (end - time.monotonic()) * speed / batch), length)
        found = _run(recipe, Path(name) / "run", length)
        where = "scenes" if root is None else "CIFAR-10"
        settings = f"{where}, width {96 if tiny else 192}, {length} steps of {batch}"
        reached = f"k-NN {100 * found['knn']:.1f} % after {found['seconds']:.0f} s"
        yield "learning", settings, f"{found['images_per_second']:.0f} images/s, {reached}"


def _run(recipe: list[str], folder: Path, steps: int) -> dict[str, float]:
    command = [sys.executable, "train.py", *recipe, f"schedule.max_steps={steps}", f"run_dir={folder}",
               f"schedule.warmup_steps={steps // 10}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    summary = json.loads((folder / "summary.json").read_text())
    results = [value for name, value in summary["results"]["target encoder"].items() if name.endswith("knn20")]
    speed = summary["images"] / summary["seconds"]
    return {"images_per_second": speed, "seconds": summary["seconds"], "knn": sum(results) / len(results)}


if __name__ == "__main__":
    main()
