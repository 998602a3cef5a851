"""Builds data, networks and trainer from a configuration: the only place where parts are wired together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from timm.layers import Attention

from ijepa import config as schema
from ijepa import masking
from ijepa.callbacks.checkpoint import AtomicCheckpointIO, Checkpoint
from ijepa.callbacks.evaluation import Evaluation
from ijepa.callbacks.health import Health
from ijepa.callbacks.pictures import FeaturePictures
from ijepa.callbacks.progress import ProgressReport
from ijepa.callbacks.recorder import Recorder
from ijepa.config import checks
from ijepa.data import sources
from ijepa.data.datamodule import DataModule
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.sets import Source
from ijepa.data.workers import processes
from ijepa.distributed import devices, sharding
from ijepa.distributed.signals import Signals
from ijepa.evaluation import tasks
from ijepa.evaluation.context import label_sets
from ijepa.health import pace
from ijepa.loggers import MetricsCSV
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.models.pretrained import Spec
from ijepa.run import warm_start
from ijepa.training.flops import PretrainingFlops, TransformerFlops
from ijepa.training.module import Pretraining
from ijepa.training.objective import Objective
from ijepa.training.schedule import training_schedule


@dataclass
class Run:
    """Everything that a training run consists of."""

    config: schema.TrainConfig
    folder: Path
    spec: Spec
    data: DataModule
    module: Pretraining
    metrics: MetricsCSV
    recorder: Recorder
    checkpoint: Checkpoint
    health: Health | None
    trainer: L.Trainer
    start: list[str]
    """What the networks started from, where that is init; a line each."""


def spec(model: schema.Model, data: schema.Data) -> Spec:
    """The encoder that the configuration describes."""
    return Spec(
        image_size=_pair(data.image_size),
        patch_size=model.patch_size,
        channels=data.channels,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        mlp_ratio=model.mlp_ratio,
        positions=model.positions,
        position_grid=None if model.position_grid is None else _pair(model.position_grid),
        mean=tuple(data.mean),
        std=tuple(data.std),
        eval_crop=data.eval_crop,
    )


def networks(config: schema.TrainConfig) -> JEPA:
    """The three networks, with initial weights from the process's random state."""
    encoder_spec = spec(config.model, config.data)
    encoder = encoder_spec.build(config.model.init)
    predictor = Predictor(
        encoder.width,
        _output_width(config),
        encoder.grid,
        config.predictor.width,
        config.predictor.depth,
        config.model.heads,
        positions=config.model.positions,
        position_grid=encoder_spec.position_grid,
        init=config.model.init,
    )
    return JEPA(encoder, predictor, config.objective.target, config.objective.normalize_targets)


def sampler(config: schema.TrainConfig) -> masking.Masking:
    """The masks' sampler for the configuration's grid of patches."""
    rows, columns = (side // config.model.patch_size for side in config.data.image_size)
    return sampler_of(config.masking, (rows, columns))


def sampler_of(masks: schema.Masking, grid: tuple[int, int]) -> masking.Masking:
    """The sampler that ``masks`` describes, for a grid of patches; raises ConfigError where they do not fit."""
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in masks.model_dump(exclude={"name"}).items()
    }
    chosen: masking.Masking = masking.SAMPLERS[masks.name](grid=grid, **arguments)
    return chosen


def data(
    config: schema.Data, source: Source, masks: masking.Masking | None, steps: int, hardware: schema.Hardware,
    seed: int,
) -> DataModule:  # fmt: skip
    """Batches for training (with ``masks``) and images for evaluation."""
    size = _pair(config.image_size)
    return DataModule(
        source,
        masks,
        TrainTransform(size, _floats(config.crop_scale), _floats(config.crop_aspect), config.flip),
        EvalTransform(size, config.eval_crop, stretch=config.eval_resize == "stretch"),
        config.channels,
        config.batch_size,
        hardware.accumulation,
        steps,
        processes(config.workers, hardware.devices),
        seed,
    )


def run(config: schema.TrainConfig, folder: Path, step: int = 0) -> Run:
    """Wires a training run; ``folder`` is not written to yet.

    Args:
        config: everything.
        folder: of the run.
        step: after which it goes on with a checkpoint of its own: ``init`` is of no concern then.

    Raises:
        UserError: when the configuration does not fit together, the data or the hardware.
    """
    checks.check(config)
    devices.check_launcher(config.hardware)
    accelerator = devices.device(config.hardware)
    masks = sampler(config)
    source = sources.build(config.data, config.seed)
    images = len(source.train)
    schedule = training_schedule(config.schedule, config.optimizer, config.data.batch_size, images)
    torch.manual_seed(config.seed)
    jepa = networks(config)
    start = None if config.init is None or step else warm_start.read(config.init, config.model.heads)
    notes = (
        [] if start is None else [f"{start.held} of {start.file}", *warm_start.load(jepa, start, config.init_channels)]
    )
    chosen = devices.precision(config.hardware, accelerator)
    if accelerator == "cpu" and chosen.startswith("bf16"):
        for module in jepa.modules():
            if isinstance(module, Attention):
                module.fused_attn = False  # on a CPU, SDPA's backward pass in bf16 is several times slower
    encoder_spec = spec(config.model, config.data)
    objective = Objective(
        config.objective.distance,
        config.objective.variance_weight,
        config.objective.covariance_weight,
        config.objective.regularize,
        encoder_spec.grid[0] * encoder_spec.grid[1],
        sharding.total,
    )
    module = Pretraining(
        jepa,
        objective,
        schedule,
        (config.optimizer.betas[0], config.optimizer.betas[1]),
        config.optimizer.eps,
        config.data.mean,
        config.data.std,
        chosen == "bf16-true",
        config.hardware.checkpointing,
        config.hardware.compile,
    )
    datamodule = data(config.data, source, masks, schedule.max_steps, config.hardware, config.seed)
    metrics = MetricsCSV(folder / "metrics.csv")
    recorder = Recorder(config.callbacks.log_every_steps, cost(config), config.data.batch_size, images)
    often = health_steps(config, masks, schedule.max_steps)
    health = None
    if often is not None:
        wanted, file = config.callbacks.health_images, folder / "health.json"
        health = Health(datamodule, recorder, often, wanted, file, config.seed, schedule.warmup_steps)
    checkpoint = Checkpoint(
        folder / "checkpoints",
        encoder_spec,
        datamodule,
        config.callbacks.checkpoint_every_steps,
        config.callbacks.checkpoint_every_minutes,
        config.callbacks.checkpoint_keep,
        Signals(),
        health,
    )
    callbacks: list[L.Callback] = [recorder, *([health] if health else [])]
    every = config.callbacks.evaluate_every_epochs
    measured, _ = tasks.supported_tasks(config.task, datamodule)
    if every is not None and measured.measured():
        callbacks.append(Evaluation(measured, datamodule, encoder_spec, recorder, every, config.seed))
    count = config.callbacks.pictures
    if count is not None:
        pictures = folder / "pictures"
        callbacks.append(FeaturePictures(datamodule, encoder_spec, recorder, pictures, schedule.max_steps, count))
    callbacks += [ProgressReport(recorder, schedule.max_steps, config.callbacks.progress_every_seconds), checkpoint]
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=config.hardware.devices,
        num_nodes=config.hardware.nodes,
        strategy=devices.strategy(config.hardware),
        precision="32-true" if chosen == "bf16-true" else chosen,  # type: ignore[arg-type]  # ours keeps fp32 weights
        max_steps=schedule.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=config.hardware.accumulation,
        gradient_clip_val=config.optimizer.clip_grad_norm,
        logger=[metrics, *loggers(config, folder, label_sets(datamodule), step)],
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
    return Run(config, folder, encoder_spec, datamodule, module, metrics, recorder, checkpoint, health, trainer, notes)


def health_steps(config: schema.TrainConfig, masks: masking.Masking, steps: int) -> int | None:
    """Steps between health checks; None: never."""
    callbacks, world_size = config.callbacks, config.hardware.devices * config.hardware.nodes
    if callbacks.health_every_steps != "auto":
        return callbacks.health_every_steps
    drawn = masks.sample(config.seed, 0, np.arange(1))
    sizes = drawn.context.shape[1], drawn.targets.shape[1], drawn.targets.shape[2]
    share, every = config.data.batch_size // world_size, callbacks.checkpoint_every_steps
    return pace.steps_between(cost(config), sizes, callbacks.health_images, share, steps, every)


def cost(config: schema.TrainConfig) -> PretrainingFlops:
    """What an image costs."""
    encoder = spec(config.model, config.data)
    patches = encoder.image_size[0] * encoder.image_size[1] // encoder.patch_size**2
    return PretrainingFlops(
        patches,
        encoder.patch_size**2 * encoder.channels,
        TransformerFlops(encoder.width, encoder.depth, encoder.mlp_ratio),
        TransformerFlops(config.predictor.width, config.predictor.depth, 4.0),
        _output_width(config),
        config.objective.target,
    )


def loggers(config: schema.TrainConfig, folder: Path, labels: list[str], step: int) -> list[Logger]:
    """What ``logger`` adds to metrics.csv.

    Raises:
        UserError: when W&B is to be used online and nobody is logged in.
    """
    values = config.model_dump()
    if isinstance(config.logger, schema.WandbLogger):
        from ijepa.loggers.wandb_run import WandbRun  # takes a second to import

        return [WandbRun(config.logger, folder, values, labels, step > 0)]
    if isinstance(config.logger, schema.TensorBoardLogger):
        from ijepa.loggers.tensorboard import TensorBoardRun

        return [TensorBoardRun(folder, OmegaConf.to_yaml(OmegaConf.create(values)), step)]
    return []


def _output_width(config: schema.TrainConfig) -> int:
    pixels = config.model.patch_size**2 * config.data.channels
    return pixels if config.objective.target == "pixels" else config.model.width


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]


def _floats(values: list[float]) -> tuple[float, float]:
    return values[0], values[1]
