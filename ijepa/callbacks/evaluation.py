"""The target encoder's accuracy every so often."""

from typing import Any

import lightning as L

from ijepa.callbacks.recorder import Recorder
from ijepa.config import Knn, Tasks
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import tasks
from ijepa.evaluation.features import Runtime
from ijepa.models.pretrained import PretrainedEncoder, Spec
from ijepa.pretraining import Pretraining


class Evaluation(L.Callback):
    """Runs the first of ``tasks`` every ``every_epochs`` on the target encoder; the result stands in metrics.csv.

    Args:
        tasks: what to evaluate.
        data: labelled images.
        spec: of the encoder.
        recorder: its clock stands still meanwhile.
        every_epochs: passes over the training images between evaluations.
        seed: of the task.
        bf16: compute features under autocast.
    """

    def __init__(
        self,
        tasks: Tasks,
        data: DataModule,
        spec: Spec,
        recorder: Recorder,
        every_epochs: float,
        seed: int,
        bf16: bool = False,
    ) -> None:
        first = tasks.chosen()[0]
        self.tasks = Tasks(knn=first) if isinstance(first, Knn) else Tasks(logistic=first)
        self.data = data
        self.spec = spec
        self.recorder = recorder
        self.every_steps = max(round(every_epochs * recorder.epoch_images / recorder.batch_size), 1)
        self.seed = seed
        self.bf16 = bf16
        self._done = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._done = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._done or step % self.every_steps:
            return
        self._done = step
        assert isinstance(pl_module, Pretraining)
        network = pl_module.jepa.target_encoder
        training = network.training
        runtime = Runtime(pl_module.device, self.bf16)
        embed = runtime.pooled(PretrainedEncoder(network, self.spec).eval())
        results = tasks.evaluate(self.tasks, embed, self.data, runtime, self.seed)
        network.train(training)
        for logger in trainer.loggers:
            row = {**self.recorder.totals(), **{f"val/{name}": value for name, value in results.items()}}
            logger.log_metrics(row, step=step)
        found = tasks.headlines(self.tasks, results, tasks.label_sets(self.data))
        shown = ", ".join(f"{name} {100 * value:.1f} %" for name, value in found.items())
        trainer.print(f"step {step}  {tasks.headline(self.tasks.chosen()[0])}: {shown}", flush=True)
        self.recorder.pause()
