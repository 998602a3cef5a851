"""checkpoints/last.ckpt, and a graceful end on SIGINT and SIGTERM."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L

from ijepa.checkpoint import SPEC_KEY
from ijepa.models.pretrained import Spec


class Checkpoint(L.Callback):
    """Writes ``folder/last.ckpt`` every ``every`` steps and at the end.

    The first SIGINT or SIGTERM lets the step finish and the run end there, saved; a second one ends it at once.

    Args:
        folder: for checkpoints.
        every: steps between writes.
        spec: of the encoders, stored beside the weights so that they can be rebuilt from the file alone.
    """

    def __init__(self, folder: Path, every: int, spec: Spec) -> None:
        self.folder = folder
        self.every = every
        self.spec = spec
        self.signal: int | None = None
        self._saved = self._step = -1
        self._handlers: dict[int, Any] = {}

    @property
    def path(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.ckpt"

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[SPEC_KEY] = self.spec.plain()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = self._step = trainer.global_step
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._handlers[number] = signal.signal(number, self._handle)
            except ValueError:  # not in the main thread, where signals do not arrive anyway
                return

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # in the middle of an accumulation
        self._step = step
        if step % self.every == 0:
            self._save(trainer)
        # A signal may reach one process only, or two of them a step apart: all have to stop after the same step.
        if trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False):
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step != self._saved:
            self._save(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _save(self, trainer: L.Trainer) -> None:
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.path, weights_only=False)  # everything to go on from

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        print(f"\n{signal.Signals(number).name}: ends after this step; once more to end at once", flush=True)
