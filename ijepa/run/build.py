"""From a configuration to the data, networks and objective of I-JEPA: the only place where they are wired."""

from pathlib import Path
from typing import Any, TypeVar

import torch

from ijepa import config as schema
from ijepa import masking
from ijepa.config import checks
from ijepa.config.custom import Custom, instantiate
from ijepa.data import sources
from ijepa.data.datamodule import DataModule
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.sets import Source
from ijepa.data.workers import processes
from ijepa.distributed import devices
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.run import warm_start
from ijepa.run.assembly import Run, assemble
from ijepa.run.encoders import spec, told_heads
from ijepa.run.objective import build_objective
from ijepa.training.flops import PretrainingFlops
from ijepa.training.module import Pretraining
from ijepa.training.schedule import EMASchedule, training_schedule

ModuleT = TypeVar("ModuleT", bound=Pretraining)


def networks(config: schema.TrainConfig, pretrained: bool = False) -> JEPA:
    """The three networks, with initial weights from the process's random state; ``pretrained``: or with timm's."""
    encoder_spec = spec(config.model, config.data)
    init = config.model.init if isinstance(config.model, schema.Vit) else "published"
    encoder = encoder_spec.build(init, pretrained)
    pixels = encoder_spec.patch_size**2 * encoder_spec.channels
    predictor = Predictor(
        encoder.width,
        pixels if config.objective.target == "pixels" else encoder.width,
        encoder_spec.grid,
        config.predictor.width,
        config.predictor.depth,
        encoder_spec.heads,
        config.predictor.mlp_ratio,
        positions=encoder_spec.positions,
        position_grid=encoder_spec.position_grid,
        init=init,
    )
    return JEPA(encoder, predictor, config.objective.target, config.objective.normalize_targets)


def sampler(config: schema.TrainConfig) -> masking.Masking:
    """The masks' sampler for the configuration's grid of patches."""
    return sampler_of(config.masking, spec(config.model, config.data).grid)


def sampler_of(masks: schema.Masking, grid: tuple[int, int]) -> masking.Masking:
    """The sampler that ``masks`` describes, for a grid of patches; raises ConfigError where they do not fit."""
    if isinstance(masks, Custom):
        foreign: masking.Masking = instantiate("masking", masks, masking.Masking, grid=grid)
        return foreign
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
    encoder_spec = spec(config.model, config.data)
    checks.check_sizes(config, encoder_spec.depth, encoder_spec.heads)
    devices.check_launcher(config.hardware)
    devices.device(config.hardware)
    masks = sampler(config)
    source = sources.build(config.data, config.seed)
    images = len(source.train)
    torch.manual_seed(config.seed)
    module, notes = pretraining(config, images, Pretraining, warm=not step)
    datamodule = data(config.data, source, masks, module.schedule.max_steps, config.hardware, config.seed)
    return assemble(config, folder, module, datamodule, step, notes)


def schedule(config: schema.TrainConfig, images: int) -> EMASchedule:
    """Learning rate, weight decay and EMA momentum by step, for so many training images."""
    return training_schedule(config.schedule, config.optimizer, config.data.batch_size, images, EMASchedule)


def pretraining(
    config: schema.TrainConfig, images: int, kind: type[ModuleT], warm: bool = True
) -> tuple[ModuleT, list[str]]:
    """The LightningModule, with initial weights from the process's random state, and what they come from, a line each.

    Args:
        config: everything.
        images: number of training images.
        kind: `Pretraining` or a subclass of it.
        warm: start from the weights that ``init`` names, if any, or timm's.

    Raises:
        UserError: when weights or terms of the objective do not fit.
    """
    steps = schedule(config, images)
    jepa = networks(config, isinstance(config.model, schema.TimmVit) and config.model.pretrained and warm)
    start = warm_start.read(config.init, told_heads(config.model)) if warm and config.init is not None else None
    notes: list[str] = []
    if start is not None:
        channels = config.data.channels
        notes = [f"{start.held} of {start.file}", *warm_start.load(jepa, start, channels, config.init_channels)]
    encoder = spec(config.model, config.data)
    objective = build_objective(config, encoder)
    betas = config.optimizer.betas[0], config.optimizer.betas[1]
    return kind(jepa, encoder, cost(config), objective, steps, betas, config.optimizer.eps), notes


def cost(config: schema.TrainConfig) -> PretrainingFlops:
    """What an image costs."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        jepa = networks(config)
    image = (config.data.channels, *_pair(config.data.image_size))
    return PretrainingFlops(jepa.context_encoder, jepa.predictor, image, config.objective.target)


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]


def _floats(values: list[float]) -> tuple[float, float]:
    return values[0], values[1]
