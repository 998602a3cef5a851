"""Reports steps that were skipped because their loss or gradients were not finite; too many in a row end the run."""

from typing import Any

import lightning as L

from ijepa.callbacks.checkpoint import Checkpoint
from ijepa.data.datamodule import DataModule
from ijepa.run_folder.checkpoints import step_of
from ijepa.training.base import TrainingModule
from ijepa.util.errors import UserError

NAMED = 4
"""Images of a batch that are named in the message."""


class SkippedSteps(L.Callback):
    """Reads the count of skipped steps where the run logs, so that the CPU need not wait for the device in between.

    Args:
        data: names the images of a batch.
        checkpoint: its newest file becomes the last good one when the run stops.
        resume: the command that resumes the run, for the message.
        every: steps between readings of the count, unless ``limit`` is smaller.
        limit: so many skipped steps in a row end the run; None: never.

    Attributes:
        total: steps skipped so far, as of the last row.
    """

    def __init__(self, data: DataModule, checkpoint: Checkpoint, resume: str, every: int, limit: int | None) -> None:
        self.data = data
        self.checkpoint = checkpoint
        self.resume = resume
        self.every = every if limit is None else min(every, limit)
        self.limit = limit
        self.total = 0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.total = state_dict["total"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = self._read = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        step = trainer.global_step
        if step == self._step or (step % self.every and step != pl_module.schedule.max_steps):
            return
        self._step = step
        first, self._read = self._read + 1, step
        counts = pl_module.skipped.state()
        if counts["total"] == self.total:
            return
        new, self.total = counts["total"] - self.total, counts["total"]
        for logger in trainer.loggers:
            logger.log_metrics({"skipped_steps": self.total}, step=step)
        if self.limit is not None and counts["in_a_row"] >= self.limit:
            self._stop(trainer, step - counts["in_a_row"] + 1, step)
        steps = f"step {step}" if first == step else f"{new} of steps {first} to {step}"
        trainer.print(f"skipped: {steps}: loss or gradients not finite ({self.total} so far)")

    def _stop(self, trainer: L.Trainer, first: int, last: int) -> None:
        """Raises UserError; ``first`` and ``last``: the skipped steps, counted from 1."""
        # the weights after step first - 1 are those that fail; earlier ones gave at least one finite step
        good = [path for path in self.checkpoint.folder.numbered() if (step_of(path) or 0) < first - 1]
        names = [self.data.train_name(first - 1, position) for position in range(min(NAMED, self.data.batch_size))]
        rest = self.data.batch_size - len(names)
        images = ", ".join(names) + (f" and {rest} more" if rest else "")
        remedy = "start again with a lower optimizer.lr, or optimizer.clip_grad_norm=1"
        if good:
            if trainer.is_global_zero:
                self.checkpoint.rewind(good[-1], step_of(good[-1]) or 0)
            again = f"{self.resume} force=true optimizer.lr=..."
            remedy = f"the last good checkpoint is {good[-1]}; try {again}, a lower one"
        raise UserError(
            f"callbacks.max_skipped_steps={self.limit}: steps {first} to {last} were skipped, as their loss or "
            f"gradients were not finite; {remedy}; images of step {first}: {images}"
        )
