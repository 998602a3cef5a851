"""Builds the data, networks and objective of I-JEPA from a configuration; the only module that connects them."""

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
from ijepa.data.workers import worker_count
from ijepa.distributed import devices
from ijepa.interop import loading
from ijepa.interop.weights import Which
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.models.pretrained import PretrainedEncoder, Spec
from ijepa.models.protocol import PatchEncoder
from ijepa.models.teacher import Teacher
from ijepa.models.transformer import PatchTransformer
from ijepa.run import warm_start
from ijepa.run.assembly import Run, assemble
from ijepa.run.encoders import configured_heads, spec
from ijepa.run.objective import build_objective, pixels_beside_features
from ijepa.run_folder.folder import TEACHER, RunFolder
from ijepa.training.flops import PretrainingFlops
from ijepa.training.module import Pretraining
from ijepa.training.schedule import EMASchedule, training_schedule
from ijepa.util.errors import ConfigError, UserError

ModuleT = TypeVar("ModuleT", bound=Pretraining)


def networks(config: schema.TrainConfig, pretrained: bool = False, teacher: PretrainedEncoder | None = None) -> JEPA:
    """Context encoder, predictor and target encoder, initialised from torch's global generator.

    Args:
        config: the run's configuration.
        pretrained: the encoders get timm's pretrained weights instead.
        teacher: the frozen encoder whose features are predicted.
    """
    encoder_spec = spec(config.model, config.data)
    encoder = encoder_spec.build(pretrained)
    objective = config.objective
    targets = encoder if teacher is None else teacher.encoder
    depths = _target_depths(objective.target_depths, targets)
    pixels = encoder_spec.patch_size**2 * encoder_spec.channels
    beside = pixels_beside_features(objective, encoder_spec)
    predictor = Predictor(
        encoder.width,
        pixels if objective.target == "pixels" else targets.width * len(depths or (0,)) + beside,
        encoder_spec.grid,
        config.predictor.width,
        config.predictor.depth,
        encoder_spec.heads,
        config.predictor.mlp_ratio,
        positions=encoder_spec.positions,
        position_grid=encoder_spec.position_grid,
        init=encoder_spec.init,
        attention=config.predictor.attention,
    )
    return JEPA(
        encoder,
        predictor,
        objective.target,
        normalize=objective.normalize_targets,
        depths=depths,
        standardize=objective.standardize_targets,
        renormalize=objective.renormalize_targets,
        pixels=beside,
        teacher=None if teacher is None else _teacher(objective, teacher, encoder_spec),
    )


def read_teacher(config: schema.TrainConfig, source: Path | None = None) -> PretrainedEncoder | None:
    """The frozen encoder that gives the targets, if any; ``source``: where it is, instead of ``objective.teacher``.

    Keeps torch's random state.

    Raises:
        UserError: when it cannot be read.
    """
    if config.teacher is None and config.objective.teacher is None:
        return None
    if source is None and config.objective.teacher is None:
        raise UserError("teacher: only train.py trains one; try teacher=null with objective.teacher=RUN_DIR")
    key = loading.TEACHER_KEY
    with torch.random.fork_rng(devices=[]):
        found = loading.select_file(source or loading.resolve_source(str(config.objective.teacher), key), key=key)
        weights = loading.read_weights(found, None, key)
        which: Which = "context" if weights.encoder("target") is None else "target"
        return loading.build_encoder(weights, found, which, key=key)


def _teacher(objective: schema.Objective, pretrained: PretrainedEncoder, encoder: Spec) -> Teacher:
    key = loading.TEACHER_KEY
    if objective.target == "pixels":
        raise ConfigError(key, objective.teacher, "is not used with objective.target=pixels; omit one of the two")
    try:
        return Teacher(pretrained, encoder)
    except ValueError as error:
        raise ConfigError(key, objective.teacher, f"{error}; train one with these, or change data and model") from None


def _target_depths(depths: list[int] | None, encoder: PatchEncoder) -> tuple[int, ...] | None:
    if depths is None:
        return None
    key = "objective.target_depths"
    if not isinstance(encoder, PatchTransformer):
        raise ConfigError(key, depths, "this model gives only its last block's output; try null")
    if depths != sorted(set(depths)) or depths[-1] > encoder.depth:
        raise ConfigError(key, depths, f"must ascend, and be at most {encoder.depth}, the encoder's blocks; try null")
    return tuple(depths)


def sampler(config: schema.TrainConfig) -> masking.Masking:
    """The mask sampler for the configuration's grid of patches."""
    return sampler_of(config.masking, spec(config.model, config.data).grid)


def sampler_of(masks: schema.Masking, grid: tuple[int, int]) -> masking.Masking:
    """The mask sampler that ``masks`` describes, for a grid of patches; raises ConfigError if the masks do not fit."""
    if isinstance(masks, Custom):
        custom: masking.Masking = instantiate("masking", masks, masking.Masking, grid=grid)
        return custom
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in masks.model_dump(exclude={"name"}).items()
    }
    built_in: masking.Masking = masking.SAMPLERS[masks.name](grid=grid, **arguments)
    return built_in


def data(
    config: schema.Data, source: Source, masks: masking.Masking | None, steps: int, hardware: schema.Hardware,
    seed: int,
) -> DataModule:  # fmt: skip
    """The datamodule: training batches with masks from the sampler ``masks``, and evaluation images."""
    size = _pair(config.image_size)
    return DataModule(
        source,
        masks,
        TrainTransform(size, _floats(config.crop_scale), _floats(config.crop_aspect), config.flip, config.jitter),
        EvalTransform(size, config.eval_crop, stretch=config.eval_resize == "stretch"),
        config.channels,
        config.batch_size,
        hardware.accumulation,
        steps,
        worker_count(config.workers, hardware.devices),
        seed,
        config.worker_timeout,
    )


def run(config: schema.TrainConfig, folder: Path, step: int = 0) -> Run:
    """An I-JEPA training run; writes no file yet.

    Args:
        config: the run's configuration.
        folder: of the run.
        step: after which the run resumes from one of its checkpoints, so that ``init`` is ignored; 0: a new run.

    Raises:
        UserError: when the configuration contradicts itself, the data or the hardware.
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
    files = RunFolder(folder)
    trained = None if config.teacher is None else files.teacher_run
    teacher = read_teacher(config, files.export(TEACHER) if step else trained)
    module, notes = pretraining(config, images, Pretraining, use_init=not step, teacher=teacher)
    datamodule = data(config.data, source, masks, module.schedule.max_steps, config.hardware, config.seed)
    return assemble(config, folder, module, datamodule, step, notes)


def schedule(config: schema.TrainConfig, images: int) -> EMASchedule:
    """Learning rate, weight decay and EMA momentum of each step; ``images``: number of training images."""
    return training_schedule(config.schedule, config.optimizer, config.data.batch_size, images, EMASchedule)


def pretraining(
    config: schema.TrainConfig,
    images: int,
    kind: type[ModuleT],
    use_init: bool = True,
    teacher: PretrainedEncoder | None = None,
) -> tuple[ModuleT, list[str]]:
    """The LightningModule, initialised from torch's global generator, and lines about weights that ``init`` loads.

    Args:
        config: the run's configuration.
        images: number of training images.
        kind: `Pretraining` or a subclass of it.
        use_init: load the weights that ``init`` names, or timm's pretrained weights, if the configuration says so.
        teacher: the frozen encoder whose features are predicted; None: that of ``objective.teacher``, if any.

    Raises:
        UserError: when weights or terms of the objective do not fit.
    """
    steps = schedule(config, images)
    frozen = teacher or read_teacher(config)
    jepa = networks(config, isinstance(config.model, schema.TimmVit) and config.model.pretrained and use_init, frozen)
    notes: list[str] = []
    if use_init and config.init is not None:
        start = warm_start.read(config.init, configured_heads(config.model))
        notes.append(f"{start.starting_networks} of {start.file}")
        notes += warm_start.load(jepa, start, config.data.channels, config.init_channels)
    encoder = spec(config.model, config.data)
    objective = build_objective(config, encoder)
    optimizer = config.optimizer
    betas, muon = (optimizer.betas[0], optimizer.betas[1]), optimizer.name == "muon"
    flops = image_flops(config, frozen)
    return kind(jepa, encoder, flops, objective, steps, betas, optimizer.eps, muon), notes


def image_flops(config: schema.TrainConfig, teacher: PretrainedEncoder | None = None) -> PretrainingFlops:
    """FLOPs per image, from networks on the meta device; ``teacher``: see `networks`."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        frozen = None if teacher is None else PretrainedEncoder(teacher.spec.build(), teacher.spec)
        jepa = networks(config, teacher=frozen)
    image = (config.data.channels, *_pair(config.data.image_size))
    depth = None if jepa.depths is None else jepa.depths[-1]
    targets = None if frozen is None else frozen.encoder
    return PretrainingFlops(jepa.context_encoder, jepa.predictor, image, config.objective.target, depth, targets)


def _pair(values: list[int]) -> tuple[int, int]:
    return values[0], values[1]


def _floats(values: list[float]) -> tuple[float, float]:
    return values[0], values[1]
