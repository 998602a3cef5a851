"""Evaluates the encoder at intervals during training."""

from typing import Any

import lightning as L

from ijepa.callbacks.recorder import Recorder
from ijepa.config import Tasks
from ijepa.data.datamodule import DataModule
from ijepa.distributed import devices
from ijepa.evaluation import tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import eval_mode


class Evaluation(L.Callback):
    """Runs the first of ``tasks`` every ``every_epochs`` on the module's encoder; the results go to the loggers.

    Args:
        tasks: the evaluation tasks; only the first is run.
        data: labelled images.
        recorder: its clock excludes the time of evaluations.
        every_epochs: passes over the training images between evaluations.
        seed: of the task, see `EvalContext`.
    """

    def __init__(self, tasks: Tasks, data: DataModule, recorder: Recorder, every_epochs: float, seed: int) -> None:
        self.tasks = tasks.first_only()
        self.data = data
        self.recorder = recorder
        self.every_steps = max(round(every_epochs * recorder.epoch_images / recorder.batch_size), 1)
        self.seed = seed
        self._last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._last_step or step % self.every_steps:
            return
        self._last_step = step
        assert isinstance(pl_module, TrainingModule)
        encoder = pl_module.evaluated()
        assert encoder is not None
        ctx = EvalContext(self.data, Runtime(pl_module.device), self.seed, quiet=True)
        with eval_mode(encoder.module), devices.tf32(False):  # as evaluate.py does
            model = EvaluatedModel(encoder.title, PretrainedEncoder(encoder.network, encoder.spec).eval())
            results = tasks.evaluate(self.tasks, model, ctx)
        for logger in trainer.loggers:
            values = {**self.recorder.totals(), **{f"val/{name}": value for name, value in results.values.items()}}
            logger.log_metrics(values, step=step)
        headlines = tasks.headlines(self.tasks, results, label_sets(self.data))
        spec = tasks.main_metric(self.tasks)
        shown = ", ".join(f"{name} {spec.format_value(value)}" for name, value in headlines.items())
        trainer.print(f"step {step}  {spec.name}: {shown}", flush=True)
        self.recorder.restart_clock()
