"""A run that trains a sketch decoder: ``python train.py experiment=decoder checkpoint=RUN_DIR``."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ijepa import config as schema
from ijepa.config import checks
from ijepa.data import sources
from ijepa.interop import loading
from ijepa.interop.weights import Weights
from ijepa.models.conditions import Conditions
from ijepa.models.decoder import SketchDecoder
from ijepa.models.diffusion import Diffusion, Sampling
from ijepa.models.sketcher import Sketcher
from ijepa.run import build, checkpoint_data, init_options, outputs
from ijepa.run.assembly import Run, assemble
from ijepa.training.decoder import DecoderTraining
from ijepa.util.errors import ConfigError, UserError, show
from ijepa.util.randomness import Stream, seed_of

KEY, HEADS_KEY = "checkpoint", "model.heads"


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
    spec = _read(path, values["model"].get("heads") if HEADS_KEY in checkpoint_data.override_keys() else None).spec
    for key in sorted(checkpoint_data.override_keys() - {HEADS_KEY}):
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
    decoder = dict(values["decoder"])
    if decoder["split_seed"] is None:
        decoder["split_seed"] = outputs.split_seed(path, data["source"], data["root"], values["seed"])
    return {**values, KEY: str(path.resolve()), "model": model, "data": data, "decoder": decoder}


def run(config: schema.TrainConfig, folder: Path, step: int = 0) -> Run:
    """See `ijepa.run.build.run`."""
    assert config.decoder is not None
    assert config.checkpoint is not None
    checks.check(config)
    heads = getattr(config.model, "heads", None)  # a model of the user's own has none
    weights = _read(loading.resolve_source(config.checkpoint, KEY), heads)
    if tuple(config.data.image_size) != weights.spec.image_size:
        size = show(list(weights.spec.image_size))
        raise ConfigError("data.image_size", config.data.image_size, f"the checkpoint's encoder has {size}; omit it")
    masks = build.sampler_of(config.masking, weights.spec.grid)
    chosen = config.decoder
    source = sources.build(config.data, config.seed if chosen.split_seed is None else chosen.split_seed)
    schedule = build.schedule(config, len(source.train))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, Stream.DECODER_INIT, 0, 0))
        sketcher = _sketcher(chosen, weights, Path(config.checkpoint))
    optimizer = config.optimizer
    module = DecoderTraining(
        sketcher, config.seed, chosen.withheld, schedule, (optimizer.betas[0], optimizer.betas[1]), optimizer.eps,
    )  # fmt: skip
    data = build.data(config.data, source, masks, schedule.max_steps, config.hardware, config.seed)
    notes = []
    if chosen.condition in ("target", "image") and weights.encoder("target") is None:
        notes.append("the checkpoint has no target encoder: its context encoder's output is drawn")
    return assemble(config, folder, module, data, step, notes)


def _read(path: Path, heads: int | None) -> Weights:
    file = loading.select_file(path, whole=True, key=KEY)
    return loading.read_weights(file, heads, KEY, HEADS_KEY)


def _sketcher(chosen: schema.Decoder, weights: Weights, file: Path) -> Sketcher:
    """A new decoder, with the frozen networks of the checkpoint that it needs.

    Raises:
        ConfigError: when the checkpoint lacks one of them.
    """
    conditions = _conditions(chosen, weights, file)
    decoder = SketchDecoder(weights.spec.channels, chosen.size, conditions.width, chosen.shown, chosen.patch_size,
                            chosen.width, chosen.depth, chosen.heads)  # fmt: skip
    sampling = Sampling(chosen.sampler, chosen.steps, chosen.guidance)
    return Sketcher(decoder, conditions, Diffusion(chosen.predicts), sampling, weights.spec)


def _conditions(chosen: schema.Decoder, weights: Weights, file: Path) -> Conditions:
    """The frozen networks of the checkpoint ``file`` that the representation needs; see `_sketcher`."""
    encoders = {}
    for which in ("target", "context"):
        state = weights.encoder(which)  # type: ignore[arg-type]
        if state is not None:
            encoders[which] = _loaded(weights.spec.build(), state, f"{which} encoder", chosen, file)
    predictor = None
    if chosen.condition == "prediction":
        lacking = "context encoder" if "context" not in encoders else "predictor" if weights.predictor is None else None
        if lacking is not None:
            raise ConfigError(
                "decoder.condition", "prediction", f"the checkpoint has no {lacking}; try target or image"
            )
        assert weights.predictor is not None
        network = weights.predictor_sizes.build(weights.spec)
        predictor = _loaded(network, weights.predictor, "predictor", chosen, file)
    target = encoders.get("target", encoders.get("context"))
    assert target is not None
    context = encoders.get("context")
    return Conditions(chosen.condition, chosen.pooled, weights.spec.grid, target, context, predictor)


def _loaded(network: Any, state: dict[str, Tensor], name: str, chosen: schema.Decoder, file: Path) -> Any:
    """``network`` with the checkpoint's weights, unless the decoder is to draw from random ones."""
    if not chosen.untrained:
        network.load_state_dict(state)
        loading.check_finite(network, name, file, KEY)
    return network
