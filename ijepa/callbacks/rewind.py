"""What a run that goes on from a checkpoint drops."""

from collections.abc import Callable

import lightning as L

from ijepa.distributed.signals import Signals


class Rewind(L.Callback):
    """Calls ``drop`` when the checkpoint is loaded and the first step begins: until then, nothing is lost.

    A signal meanwhile waits as it does within a step: what is dropped by half could not be gone on with.

    Attributes:
        done: whether that has happened.
    """

    def __init__(self, drop: Callable[[], None], signals: Signals) -> None:
        self._drop = drop
        self._signals = signals
        self.done = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.finish(trainer)

    def finish(self, trainer: L.Trainer) -> None:
        """To be called after the trainer, too, which has no first step where all steps are done."""
        if self.done:
            return
        self._signals.training = True
        if trainer.is_global_zero:
            self._drop()
        trainer.strategy.barrier()
        self.done = True
        self._signals.training = False
