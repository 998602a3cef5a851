"""Assembles a run from any LightningModule and its data: trainer, loggers and callbacks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch

from ijepa import config as schema
from ijepa.callbacks.checkpoint import AtomicCheckpointIO, Checkpoint
from ijepa.callbacks.evaluation import Evaluation
from ijepa.callbacks.health import Health
from ijepa.callbacks.pictures import FeaturePictures
from ijepa.callbacks.progress import ProgressReport
from ijepa.callbacks.recorder import Recorder
from ijepa.callbacks.skipped import SkippedSteps
from ijepa.data.datamodule import Batch, DataModule
from ijepa.distributed import devices
from ijepa.distributed.signals import Signals
from ijepa.evaluation import tasks
from ijepa.health import pace
from ijepa.health.kinds import kind_of
from ijepa.loggers import MetricsCSV
from ijepa.run import followups, observers
from ijepa.run.columns import columns
from ijepa.run_folder import RunFolder
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import DecoderMonitor, Execution, Monitor


@dataclass
class Run:
    """A training run, ready to start.

    Attributes:
        init_notes: lines that say which weights of ``init`` the networks start from.
        is_step: a step of another run: its encoder is not evaluated, and no next commands are printed.
    """

    config: schema.TrainConfig
    folder: Path
    data: DataModule
    module: TrainingModule
    metrics: MetricsCSV
    recorder: Recorder
    checkpoint: Checkpoint
    health: Health | None
    trainer: L.Trainer
    init_notes: list[str]
    is_step: bool = False

    def tasks(self) -> tuple[schema.Tasks, dict[str, str]]:
        """The tasks to evaluate, and why others are skipped, by name; both empty if no encoder is evaluated."""
        if self.is_step:
            return schema.Tasks(), {}
        return _supported_tasks(self.config, self.data, self.module)


Wire = Callable[[schema.TrainConfig, Path, int], Run]
"""Builds a run from a configuration, its folder, and the step after which it resumes (0: a new run); writes no file."""


def assemble(
    config: schema.TrainConfig,
    folder: Path,
    module: TrainingModule,
    data: DataModule,
    step: int = 0,
    init_notes: list[str] | None = None,
) -> Run:
    """The run that trains ``module`` on ``data``; writes no file yet.

    Args:
        config: hardware, callbacks, loggers and tasks are read; ``module`` and ``data`` are built from the rest.
        folder: of the run.
        module: the LightningModule to train.
        data: the images.
        step: after which the run resumes from one of its checkpoints; 0: a new run.
        init_notes: see `Run`.

    Raises:
        UserError: when the hardware is not available, or a logger has no login.
    """
    accelerator = devices.device(config.hardware)
    precision = devices.precision(config.hardware, accelerator)
    module.execution = Execution(precision == "bf16-true", config.hardware.checkpointing, config.hardware.compile)
    files = RunFolder(folder)
    metrics = MetricsCSV(files.metrics)
    recorder = Recorder(config.callbacks.log_every_steps, config.data.batch_size, len(data.source.train))
    monitor = module.monitor()
    health = _health_callback(config, folder, module, monitor, data, recorder)
    checkpoint = Checkpoint(
        files.checkpoints,
        data,
        config.callbacks.checkpoint_every_steps,
        config.callbacks.checkpoint_every_minutes,
        config.callbacks.checkpoint_keep,
        Signals(),
        health,
    )
    callbacks: list[L.Callback] = [recorder, *([health] if health else [])]
    every = config.callbacks.evaluate_every_epochs
    tasks_along_run, _ = _supported_tasks(config, data, module)
    if every is not None and tasks_along_run.with_metrics():
        callbacks.append(Evaluation(tasks_along_run, data, recorder, every, config.seed))
    steps, count = module.schedule.max_steps, config.callbacks.pictures
    if count is not None and isinstance(monitor, Monitor):
        callbacks.append(FeaturePictures(data, monitor.grid, recorder, files, steps, count))
    callbacks.append(ProgressReport(recorder, steps, config.callbacks.progress_every_seconds))
    limit = config.callbacks.max_skipped_steps
    again = followups.resume(folder, config)
    callbacks.append(SkippedSteps(data, checkpoint, again, config.callbacks.log_every_steps, limit))
    callbacks += [*observers.callbacks(config, folder, step), checkpoint]  # last: it saves the state of the others
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=config.hardware.devices,
        num_nodes=config.hardware.nodes,
        strategy=devices.strategy(config.hardware),
        precision="32-true" if precision == "bf16-true" else precision,  # type: ignore[arg-type]  # Lightning's bf16-true has no fp32 weights
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=config.hardware.accumulation,
        gradient_clip_val=config.optimizer.clip_grad_norm,
        logger=[metrics, *observers.loggers(config, folder, columns(config, tasks_along_run, data), step)],
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), *devices.plugins(config.hardware)],
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )

    def stop_waiting() -> bool:
        if checkpoint.signals.number is None or trainer.world_size > 1:  # other ranks would wait for this one
            return False
        trainer.should_stop = True
        return True

    data.stop = stop_waiting
    return Run(config, folder, data, module, metrics, recorder, checkpoint, health, trainer, init_notes or [])


def _health_callback(
    config: schema.TrainConfig, folder: Path, module: TrainingModule, monitor: Monitor | DecoderMonitor | None,
    data: DataModule, recorder: Recorder,
) -> Health | None:  # fmt: skip
    callbacks, schedule = config.callbacks, module.schedule
    every = callbacks.health_every_steps
    if every is None or monitor is None:
        return None
    kind = kind_of(monitor)
    if every == "auto":
        masks = None if data.masking is None else data.masking.sample(config.seed, 0, np.arange(1))
        image = Batch(torch.empty(1, data.channels, *data.eval_transform.size), masks, [])
        per_device = config.data.batch_size // (config.hardware.devices * config.hardware.nodes)
        step_flops, saved = per_device * module.flops(image), callbacks.checkpoint_every_steps
        check_flops = kind.flops(monitor, masks, callbacks.health_images)
        every = pace.steps_between(check_flops, step_flops, schedule.max_steps, saved)
    file = RunFolder(folder).health
    return Health(kind, data, recorder, every, callbacks.health_images, file, config.seed, schedule.warmup_steps)


def _supported_tasks(
    config: schema.TrainConfig, data: DataModule, module: TrainingModule
) -> tuple[schema.Tasks, dict[str, str]]:
    if module.evaluated() is None:
        return schema.Tasks(), {}
    return tasks.supported_tasks(config.task, data)
