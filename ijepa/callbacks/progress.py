"""Training progress: a bar in a terminal, otherwise a line every few seconds."""

import sys
import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ijepa.callbacks.recorder import Recorder
from ijepa.data.workers import worker_count

WAITING_SHARE, WAITING_SECONDS = 0.1, 30
"""Above this share of this time, waiting for images is worth a remedy."""


class ProgressReport(L.Callback):
    """Shows loss, images per second, time left and the share of time spent waiting for images.

    Args:
        recorder: provides loss and speed.
        max_steps: length of the run.
        every_seconds: interval between lines without a terminal.
    """

    def __init__(self, recorder: Recorder, max_steps: int, every_seconds: float) -> None:
        self.recorder = recorder
        self.max_steps = max_steps
        self.every_seconds = every_seconds
        self._bar: Progress | None = None
        self._printed = 0.0
        self._start = (0, 0.0)
        self._advised = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = (trainer.global_step, time.perf_counter())
        self._printed = time.perf_counter()
        if trainer.is_global_zero and sys.stderr.isatty():
            columns = (BarColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._task = self._bar.add_task("", total=self.max_steps, completed=trainer.global_step)
            self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        now, step = time.perf_counter(), trainer.global_step
        waited = getattr(trainer.train_dataloader, "waited", 0.0) / (now - self._start[1])
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=self._line(step, now, waited))
        elif now - self._printed >= self.every_seconds:
            self._printed = now
            print(self._line(step, now, waited), flush=True)
        if waited > WAITING_SHARE and now - self._start[1] > WAITING_SECONDS and not self._advised:
            self._advised = True
            workers = getattr(trainer.train_dataloader, "workers", 0)
            print(f"note: {_waiting(waited)}; {remedy(workers, trainer.num_devices)}", flush=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, step: int, now: float, waited: float) -> str:
        first_step, start = self._start
        remaining = (now - start) / max(step - first_step, 1) * (self.max_steps - step)
        epoch = self.recorder.images / self.recorder.epoch_images
        return (
            f"step {step}/{self.max_steps}  epoch {epoch:.1f}  loss {self.recorder.loss:.4f}  "
            f"{self.recorder.images_per_second:.0f} images/s  {_duration(remaining)} left  "
            f"{_waiting(waited)}"
        )


def remedy(workers: int, devices: int) -> str:
    """What to try if training waits for images that ``workers`` processes of each device read."""
    cores = worker_count(None, devices)
    if workers < cores:
        return f"try data.workers={cores}, instead of {workers}"
    return "try images that are stored smaller, a faster disk, or more cores"


def _waiting(share: float) -> str:
    return f"{100 * share:.0f} % waiting for images"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
