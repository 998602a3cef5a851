"""Returns a run's files to the step of the checkpoint from which it resumes."""

from collections.abc import Callable

import lightning as L

from ijepa.distributed.signals import Signals


class Rewind(L.Callback):
    """Calls ``rewind_files`` once the checkpoint has loaded, just before the first step; before that nothing is lost.

    A signal meanwhile is deferred, as within a step: a half-finished deletion could not be resumed from.

    Args:
        rewind_files: deletes the rows and checkpoints after the step from which the run resumes; called on rank 0.
        signals: of the run.

    Attributes:
        has_run: whether `finish` has run.
    """

    def __init__(self, rewind_files: Callable[[], None], signals: Signals) -> None:
        self._rewind_files = rewind_files
        self._signals = signals
        self.has_run = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """Calls ``rewind_files``, once; call it after `Trainer.fit`, too, in case no steps are left."""
        if self.has_run:
            return
        self._signals.training = True
        if trainer.is_global_zero:
            self._rewind_files()
        trainer.strategy.barrier()
        self.has_run = True
        self._signals.training = False
