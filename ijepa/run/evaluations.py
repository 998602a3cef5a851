"""Evaluates one checkpoint: tasks, baselines, the table and metrics.json."""

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ijepa.config import TRAINING, EvaluateConfig
from ijepa.config.checks import check_data, check_model, check_task, parse
from ijepa.data import sources
from ijepa.data.datamodule import DataModule
from ijepa.data.limits import ValueLimit
from ijepa.data.sets import has_label
from ijepa.distributed import devices
from ijepa.evaluation import tasks
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.runtime import Runtime, build_runtime
from ijepa.interop import loading
from ijepa.interop.heads_file import CLASSIFIER, FILES, kind_of
from ijepa.interop.reading import FORMATS
from ijepa.models.pretrained import PretrainedEncoder, Spec, untrained_encoder
from ijepa.run import build, checkpoint_data, decoders, encoders, folders, outputs, suggested
from ijepa.run_folder.evaluation import UNFINISHED, evaluation_file
from ijepa.util.errors import ConfigError, InterruptedRunError, UserError


def evaluate(composed: DictConfig) -> float | None:
    """Runs the configured evaluation; returns the headline result: the mean of the main metric over label sets.

    Raises:
        UserError: when checkpoint, data and task do not fit together.
    """
    if OmegaConf.is_missing(composed, "checkpoint") or composed.checkpoint in (None, ""):
        raise UserError(f"checkpoint is not set; add checkpoint={FORMATS}, or {outputs.RANDOM}")
    if "decode" in composed.task:
        return decoders.load("ijepa.run.decoder_evaluation").evaluate(composed)  # type: ignore[no-any-return]
    which = str(composed.encoder)
    if which not in ("target", "context"):
        raise ConfigError("encoder", which, "should be target or context")
    container = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(container, dict)
    values: dict[str, Any] = {str(k): value for k, value in container.items() if k not in TRAINING or k == "model"}
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    path = None if composed.checkpoint == outputs.RANDOM else loading.resolve_source(str(composed.checkpoint))
    loaded = None
    if path is not None:
        file = loading.select_file(path, which)  # type: ignore[arg-type]  # checked
        weights = loading.read_weights(file, values["heads"])
        loaded = loading.build_encoder(weights, file, which)  # type: ignore[arg-type]
        for note in weights.notes if first else ():
            print(f"{file}: {note}")
        _reject_model_keys()
        values |= {"data": checkpoint_data.values(values["data"], path, loaded.spec), "model": None}
    if values["data"]["root"] == "???":
        raise UserError("data.root is not set; add data.root=FOLDER")
    config = parse(EvaluateConfig, values)
    encoder = loaded or _random_encoder(config)
    _validate_fit(config, encoder.spec)
    check_data(config.data)
    devices.check_launcher(config.hardware)
    devices.device(config.hardware)
    source = sources.build(config.data, outputs.split_seed(path, config.data.source, config.data.root, config.seed))
    masks = None if config.task.pictures is None else outputs.mask_sampler(path, config, encoder.spec.patch_size, first)
    data = build.data(config.data, source, masks, 0, config.hardware, config.seed)
    if config.task.paper is not None:
        chosen, skipped = tasks.supported_tasks(config.task, data)
        config = config.model_copy(update={"task": chosen})
        for name, reason in skipped.items() if first else ():
            print(f"task=paper skips {name}: {reason}")
        if not chosen.chosen():
            raise ConfigError(
                "task", "paper", "none of its tasks is possible with these images; they need labels or maps"
            )
    else:
        tasks.validate(config.task, data, config.data)
    fabric = devices.fabric(config.hardware)
    if fabric is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        problem = "evaluations on several devices cannot run in a sweep; start the jobs one by one"
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    for note in suggested.notes(config) if first and loaded is None else ():
        print(f"data     {note}")
    with devices.launching(fabric):
        source.prepare()
        return _run_tasks(config, path, encoder, data, build_runtime(config.hardware, fabric))


def _run_tasks(
    config: EvaluateConfig, path: Path | None, encoder: PretrainedEncoder, data: DataModule, runtime: Runtime
) -> float | None:
    """Runs the tasks; only global rank 0 prints and writes files. Returns the headline result."""
    source, names, first = data.source, label_sets(data), runtime.ranks.rank == 0
    folder = outputs.output_folder(config, path)
    if first:
        folders.create(folder, "output")
        (folder / UNFINISHED).touch()
        images = f"{len(source.train)} training and {len(source.val)} validation images"
        print(f"{outputs.task_names(config)} on {images}", flush=True)
        for part in (source.train, source.val):
            for name in names:
                count = int(has_label(part, name).sum())
                if count < len(part):
                    which = "training" if part is source.train else "validation"
                    print(f"labels   {name}: {count} of the {len(part)} {which} images have one", flush=True)
    cache = None if config.cache is None else Path(config.cache).expanduser()
    limit = ValueLimit.of_encoder(config.data.mean, config.data.std, config.data.max_deviations)
    ctx = EvalContext(
        data, runtime, config.seed, config.layers, cache, folder if first else None, not first, config.baselines,
        path and outputs.run_folder(path).path, write_models=config.write_models,
        classifiers=tasks.with_classifiers(config.task), encoder=config.encoder, max_pixels=config.data.max_pixels,
        value_limit=limit,
    )  # fmt: skip
    try:
        rows = _evaluate_all(config, path, encoder, ctx)
    except (InterruptedRunError, KeyboardInterrupt):
        if first:
            print(f"stopped before {evaluation_file(folder)} was written; the same command begins again", flush=True)
        raise
    if first and config.output is None:
        _drop_old_classifiers(folder, rows[0].files, path)
    headlines = tasks.headlines(config.task, rows[0], names) if rows[0].results else {}
    if first:
        outputs.report(config, rows, names, data, folder)
    return sum(headlines.values()) / len(headlines) if headlines else None


def _evaluate_all(
    config: EvaluateConfig, path: Path | None, encoder: PretrainedEncoder, ctx: EvalContext
) -> list[tasks.ModelResults]:
    """The results of the encoder, then those of the baselines."""
    model = EvaluatedModel(f"{config.encoder} encoder" if path else UNTRAINED, encoder)
    rows = [tasks.evaluate(config.task, model, ctx)]
    if config.baselines and config.task.with_metrics():
        rows += tasks.baselines(config.task, encoder.spec, ctx, initial=path is not None)
    return rows


def _drop_old_classifiers(folder: Path, written: list[Path], checkpoint: Path | None) -> None:
    """Deletes what an earlier evaluation of this name has left, if this one has left classifiers of other names."""
    found = [file for name in FILES[CLASSIFIER] for file in folder.glob(name) if kind_of(file) == CLASSIFIER]
    if any(file in written for file in found):
        for file in found:
            if file not in written and (checkpoint is None or file.resolve() != checkpoint.resolve()):
                file.unlink()


def _random_encoder(config: EvaluateConfig) -> PretrainedEncoder:
    """A randomly initialised encoder, from ``model`` and ``data``."""
    assert config.model is not None
    check_data(config.data)
    check_model(config.model, config.data)
    return untrained_encoder(encoders.spec(config.model, config.data), config.seed)


def _reject_model_keys() -> None:
    """Raises UserError if the command line sets model keys, which the checkpoint determines."""
    for key in sorted(checkpoint_data.override_keys()):
        if key.partition(".")[0] == "model":
            raise UserError(f"{key}: the shape comes from the checkpoint; omit it")


def _validate_fit(config: EvaluateConfig, spec: Spec) -> None:
    data = config.data
    if data.channels != spec.channels:
        raise ConfigError("data.channels", data.channels, f"the encoder was trained on {spec.channels}")
    if any(side % spec.patch_size for side in data.image_size):
        problem = f"not divisible by the encoder's patches of {spec.patch_size} pixels"
        raise ConfigError("data.image_size", data.image_size, problem)
    if config.layers > spec.depth:
        raise ConfigError("layers", config.layers, f"the encoder has {spec.depth} blocks; try {spec.depth}")
    check_task(config.task, spec.depth)
