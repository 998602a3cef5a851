"""Writes checkpoints/step-000100.ckpt, last.ckpt, and best-*.ckpt."""

import errno
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ijepa.callbacks.health import Health
from ijepa.data.datamodule import DataModule
from ijepa.distributed.signals import Signals
from ijepa.interop.loading import IMAGES_KEY, load_checkpoint
from ijepa.run_folder import CheckpointFolder
from ijepa.run_folder.checkpoints import step_of
from ijepa.training.base import TrainingModule
from ijepa.util.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: under a temporary name, then renamed.

    Lightning's own implementation keeps a second copy in memory, and moves files across file systems.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with replacing(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's writer does not say why
                raise OSError(errno.ENOSPC, f"cannot be written ({os.strerror(errno.ENOSPC)}?)", str(path)) from error


class Checkpoint(L.Callback):
    """Writes ``step-000100.ckpt`` and so on, and ``last.ckpt``, a link to the newest; also at the end of the run.

    If a checkpoint's step has a health check, ``best-rankme.ckpt``, ``best-lidar.ckpt`` and, with labels,
    ``best-knn.ckpt`` are hard links to the best so far: they take no time to write, and remain when the numbered file
    is deleted. RankMe and LiDAR need no labels and are heuristics: see docs/health.md.

    Args:
        folder: to write to.
        data: its identity is stored, so that a resumed run can check that the images are the same.
        every_steps, every_minutes: intervals between checkpoints; None: no such interval.
        keep: number of newest checkpoints to keep.
        signals: a signal ends the run after the current step, with a checkpoint.
        health: health checks that choose the best checkpoints; None: no best checkpoints.

    Attributes:
        best: value and step of the best checkpoint so far, by metric: ``rankme``, ``lidar``, ``knn``.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        data: DataModule,
        every_steps: int | None,
        every_minutes: float | None,
        keep: int,
        signals: Signals,
        health: Health | None = None,
    ) -> None:
        self.folder = folder
        self.data = data
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.keep = keep
        self.signals = signals
        self.health = health
        self.best: dict[str, tuple[float, int]] = {}
        self._saved = self._step = -1
        self._clock = 0.0
        self._consensus = RankConsensus()

    def state_dict(self) -> dict[str, Any]:
        return {"best": {name: list(best) for name, best in self.best.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = {name: (value, step) for name, (value, step) in state_dict["best"].items()}

    @property
    def path(self) -> Path:
        """The newest checkpoint."""
        return self.folder.last

    def rewind(self, path: Path, step: int) -> None:
        """Makes ``path``, the checkpoint of ``step``, the newest, and deletes later ones."""
        if path != self.path:
            _link(path, self.path)
        for later in self.folder.numbered():
            if (step_of(later) or 0) > step:
                later.unlink()
        for name, file in self.folder.all_best().items():
            self._rewind_best(name, file)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[IMAGES_KEY] = self.data.identity

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = self._step = trainer.global_step
        self._clock = time.monotonic()
        if trainer.is_global_zero:
            for temporary in self.folder.unfinished():
                temporary.unlink()
        self.signals.training = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # within gradient accumulation
        self._step = step
        overdue = self.every_minutes is not None and time.monotonic() - self._clock >= 60 * self.every_minutes
        signal, due = self._consensus(trainer, self.signals.number or 0, int(overdue))
        due = due and self._saved < step - 1  # with several ranks, due is that of the step before
        if due or (self.every_steps is not None and step % self.every_steps == 0):
            self._save(trainer)
        if signal:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._consensus.finish()
        if trainer.global_step != self._saved:
            self._save(trainer)
        self.signals.training = False

    def _save(self, trainer: L.Trainer) -> None:
        self._saved = trainer.global_step
        self._clock = time.monotonic()
        path = self.folder.step(trainer.global_step)
        improved = self._update_best(trainer.global_step)
        trainer.save_checkpoint(path, weights_only=False)  # with optimiser and loop state, to resume from
        if trainer.is_global_zero:
            for name in [self.path, *map(self.folder.best, improved)]:
                _link(path, name)
            module = trainer.lightning_module
            assert isinstance(module, TrainingModule)
            if not module.skipped.last:  # if it was, the run may stop soon, and resume from one of them
                for old in self.folder.numbered()[: -self.keep]:
                    old.unlink(missing_ok=True)

    def _update_best(self, step: int) -> list[str]:
        """Updates `best` with this step's scores, and returns the metrics that improved."""
        scores = {} if self.health is None else self.health.selection_scores(step)
        improved = [name for name, value in scores.items() if value > self.best.get(name, (-math.inf, 0))[0]]
        self.best.update({name: (scores[name], step) for name in improved})
        return improved

    def _rewind_best(self, name: str, file: Path) -> None:
        """Makes ``file`` the best checkpoint as recorded in `best`, or deletes it if that checkpoint is gone."""
        _, step = self.best.get(name, (0.0, -1))
        numbered = self.folder.step(step)
        if numbered.exists():
            _link(numbered, file)
        elif step < 0 or load_checkpoint(file, mapped=True)["global_step"] != step:
            file.unlink()
            self.best.pop(name, None)


class RankConsensus:
    """The maximum over ranks of some integers, so that all ranks do the same after the same step.

    With several ranks the result is that of the step before, so that the CPU need not wait for the device.
    """

    def __init__(self) -> None:
        self._pending: tuple[Any, torch.Tensor] | None = None

    def __call__(self, trainer: L.Trainer, *values: int) -> list[int]:
        """The maximum of each of ``values``; zeros in the first step, with several ranks."""
        if trainer.world_size == 1:
            return list(values)
        pending = self._pending
        tensor = torch.tensor(values, device=trainer.strategy.root_device)
        self._pending = torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, async_op=True), tensor
        if pending is None:
            return [0] * len(values)
        work, result = pending
        work.wait()
        return [int(value) for value in result.tolist()]

    def finish(self) -> None:
        """Waits for the pending all-reduce, at the end of training."""
        if self._pending is not None:
            self._pending[0].wait()
            self._pending = None


def _link(path: Path, name: Path) -> None:
    """Makes ``name`` a hard link to ``path``, or a copy if the file system has no links; atomic."""
    with replacing(name) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
