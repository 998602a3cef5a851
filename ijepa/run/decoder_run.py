"""A run that trains a sketch decoder: ``python train.py experiment=decoder checkpoint=RUN_DIR``."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ijepa import config as schema
from ijepa.config import checks
from ijepa.data import sources
from ijepa.interop import loading
from ijepa.interop.weights import Weights
from ijepa.models.conditions import Conditions
from ijepa.models.decoder import SketchDecoder
from ijepa.models.diffusion import Diffusion, Sampling
from ijepa.run import build, checkpoint_data, init_options
from ijepa.run.assembly import Run, assemble
from ijepa.training.decoder import DecoderTraining
from ijepa.util.errors import ConfigError, UserError, show
from ijepa.util.randomness import Stream, seed_of

KEY = "checkpoint"


def resolve(composed: DictConfig) -> dict[str, Any]:
    """The configuration of a decoder's run, with the sizes of the checkpoint's encoder, and its images.

    Raises:
        UserError: when the checkpoint cannot be read, or does not fit what the user has set.
    """
    if composed.get("init") is not None:
        raise ConfigError("init", composed.init, "a decoder starts from random weights; try checkpoint= instead")
    container = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(container, dict)
    values: dict[str, Any] = {str(key): value for key, value in container.items()}
    if values.get(KEY) is None:
        raise UserError("checkpoint is not set; add checkpoint=RUN_DIR: whose representations should be drawn?")
    path = loading.resolve_source(str(values[KEY]), KEY)
    spec = _read(path).spec
    for key in sorted(checkpoint_data.override_keys()):
        if key.partition(".")[0] in ("model", "predictor"):
            raise UserError(f"{key}: the networks are the checkpoint's; omit it")
    model = {**values["model"], "patch_size": spec.patch_size, "width": spec.width, "depth": spec.depth,
             "heads": spec.heads, "mlp_ratio": spec.mlp_ratio, "registers": spec.registers}  # fmt: skip
    data = values["data"]
    if init_options.is_default_config():  # else a run is repeated, or the user's own configuration says which images
        chosen = {name: value for name, value in data.items() if init_options.given(f"data.{name}")}
        data = {**checkpoint_data.values(data, path, spec), **chosen}
    if data["root"] == "???":
        raise UserError("data.root is not set; add data.root=FOLDER")
    return {**values, KEY: str(path.resolve()), "model": model, "data": data}


def run(config: schema.TrainConfig, folder: Path, step: int = 0) -> Run:
    """See `ijepa.run.build.run`."""
    assert config.decoder is not None
    assert config.checkpoint is not None
    checks.check(config)
    weights = _read(loading.resolve_source(config.checkpoint, KEY))
    if tuple(config.data.image_size) != weights.spec.image_size:
        size = show(list(weights.spec.image_size))
        raise ConfigError("data.image_size", config.data.image_size, f"the checkpoint's encoder has {size}; omit it")
    masks = build.sampler_of(config.masking, weights.spec.grid)
    source = sources.build(config.data, config.seed)
    schedule = build.schedule(config, len(source.train))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, Stream.DECODER_INIT, 0, 0))
        conditions = _conditions(config.decoder.condition, weights)
        arguments: dict[str, Any] = {"channels": weights.spec.channels, "size": config.decoder.size,
                     "condition_width": conditions.width, "shown": config.decoder.shown,
                     "widths": config.decoder.widths, "layers": config.decoder.layers}  # fmt: skip
        decoder = SketchDecoder(**arguments)
    description = {"decoder": arguments, "condition": config.decoder.condition, "predicts": config.decoder.predicts,
                   "encoder": weights.spec.plain()}  # fmt: skip
    optimizer, chosen = config.optimizer, config.decoder
    module = DecoderTraining(
        decoder, conditions, Diffusion(chosen.predicts), weights.spec, config.seed, chosen.withheld,
        Sampling(chosen.sampler, chosen.steps, chosen.guidance), schedule,
        (optimizer.betas[0], optimizer.betas[1]), optimizer.eps, description,
    )  # fmt: skip
    data = build.data(config.data, source, masks, schedule.max_steps, config.hardware, config.seed)
    return assemble(config, folder, module, data, step)


def _read(path: Path) -> Weights:
    file = loading.select_file(path, whole=True, key=KEY)
    return loading.read_weights(file, None, KEY)


def _conditions(condition: str, weights: Weights) -> Conditions:
    """The frozen networks of the checkpoint that ``condition`` needs.

    Raises:
        ConfigError: when the checkpoint lacks one of them.
    """
    encoders = {}
    for which in ("target", "context"):
        state = weights.encoder(which)  # type: ignore[arg-type]
        if state is not None:
            encoders[which] = weights.spec.build()
            encoders[which].load_state_dict(state)
            _check_finite(encoders[which], f"{which} encoder")
    predictor = None
    if condition == "prediction":
        problem = "the checkpoint has no predictor; try target or image" if weights.predictor is None else None
        if "context" not in encoders:
            problem = "the checkpoint has no context encoder; try target or image"
        if problem is not None:
            raise ConfigError("decoder.condition", condition, problem)
        assert weights.predictor is not None
        predictor = weights.predictor_sizes.build(weights.spec)
        predictor.load_state_dict(weights.predictor)
        _check_finite(predictor, "predictor")
    elif "target" not in encoders and condition != "nothing":
        raise ConfigError("decoder.condition", condition, "the checkpoint has no target encoder; try prediction")
    target = encoders.get("target", encoders.get("context"))
    assert target is not None
    return Conditions(condition, target, encoders.get("context"), predictor)  # type: ignore[arg-type]  # checked


def _check_finite(network: object, name: str) -> None:
    assert isinstance(network, nn.Module)
    spoilt = next((each for each, weight in network.named_parameters() if not weight.isfinite().all()), None)
    if spoilt is not None:
        raise UserError(f"{KEY}: {spoilt} of the {name} is not finite, as after a run that diverged; try an older one")
