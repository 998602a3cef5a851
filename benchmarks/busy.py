"""How much does training slow down beside other processes? Steps of the model of `make train`, per setting of OpenMP.

python -m benchmarks.busy

Each measurement is a process of its own with another setting of OpenMP's environment variables (how long a thread that
waits for the others spins: by default, not at all, and as here; or only one thread), alone and beside: a
process that multiplies matrices with as many threads as there are cores, one that does so with one thread, and one that
allocates memory in a loop. All in turn, so that the ratios are of one run.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch

from ijepa.util.threads import SPINS

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "short": {"GOMP_SPINCOUNT": SPINS},  # of train.py, evaluate.py and predict.py
    "one thread": {"OMP_NUM_THREADS": "1"},
}
COMPETITORS = {
    "alone": "",
    "all threads": "import torch\nx = torch.randn(1024, 1024)\nwhile True: x @ x",
    "one thread": "import torch\ntorch.set_num_threads(1)\nx = torch.randn(1024, 1024)\nwhile True: x @ x",
    "memory": "import numpy as np\nwhile True: np.ones(2**25)",
}
SECONDS, WARMUP, IMAGES = 5.0, 5, 512


class Clock(L.Callback):
    """Stops training some time after the first steps, and prints the steps per second."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.started = seconds, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == WARMUP:
            self.started = time.perf_counter()
        elif trainer.global_step > WARMUP and time.perf_counter() - self.started > self.seconds:
            trainer.should_stop = True
            print((trainer.global_step - WARMUP) / (time.perf_counter() - self.started))


def train(seconds: float) -> None:
    """The main job's model on random images in memory, read in this process."""
    from ijepa import build_module, compose_config  # takes seconds, which the parent process need not wait for
    from ijepa.data.sets import Source, Uint8Images
    from ijepa.distributed import devices
    from ijepa.run import build

    config = compose_config("experiment=scenes", "data.workers=0", "schedule.max_steps=100000", "schedule.epochs=null")
    pixels = torch.randint(0, 256, (IMAGES, *config.data.image_size, 3), dtype=torch.uint8).numpy()
    images = Uint8Images(pixels, {}, 3, "random")
    sampler = build.sampler(config)
    data = build.data(config.data, Source(images, images, {}), sampler, 100_000, config.hardware, config.seed)
    precision: Any = devices.precision(config.hardware, "cpu")
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_steps=100_000, callbacks=[Clock(seconds)], logger=False, precision=precision,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(build_module(config, data), data)


@contextlib.contextmanager
def beside(program: str) -> Iterator[None]:
    if not program:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        time.sleep(3)  # it imports
        yield
    finally:
        process.kill()
        process.wait()


def measured(setting: dict[str, str]) -> float:
    """Steps per second in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.busy", "--train", str(SECONDS)]
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    found = subprocess.run(command, env={**others, **setting}, stdout=subprocess.PIPE, text=True, check=True)
    return float(found.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("--train", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each kind")
    parser.add_argument("--beside", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    given = parser.parse_args()
    if given.train:
        train(given.train)
        return
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(given.rounds):
        for competitor in given.beside:
            for name, setting in SETTINGS.items():
                with beside(COMPETITORS[competitor]):
                    rates.setdefault((competitor, name), []).append(measured(setting))
    print(f"steps per second, median of {given.rounds}; {os.cpu_count()} cores")
    print(f"| beside | {' | '.join(SETTINGS)} |\n|---|{'---:|' * len(SETTINGS)}")
    for competitor in given.beside:
        cells = [f"{statistics.median(rates[competitor, name]):.2f}" for name in SETTINGS]
        print(f"| {competitor} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
