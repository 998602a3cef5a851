"""Deletes what lies after the checkpoint from which a run resumes."""

from collections.abc import Callable

import lightning as L

from ijepa.distributed.signals import Signals


class Rewind(L.Callback):
    """Calls ``delete_later`` once the checkpoint is loaded and the first step begins; before that nothing is lost.

    A signal meanwhile is deferred, as within a step: a half-finished deletion could not be resumed from.

    Args:
        delete_later: deletes the rows and checkpoints after the step from which the run resumes; called on rank 0.
        signals: of the run.

    Attributes:
        done: whether `finish` has run.
    """

    def __init__(self, delete_later: Callable[[], None], signals: Signals) -> None:
        self._delete_later = delete_later
        self._signals = signals
        self.done = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Calls ``delete_later``, once; call it after `Trainer.fit`, too, in case no steps are left."""
        if self.done:
            return
        self._signals.training = True
        if trainer.is_global_zero:
            self._delete_later()
        trainer.strategy.barrier()
        self.done = True
        self._signals.training = False
