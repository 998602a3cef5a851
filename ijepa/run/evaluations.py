"""Evaluates one checkpoint: tasks, baselines, the table and metrics.json."""

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter
from rich.console import Console

from ijepa import config as schema
from ijepa.config import TRAINING, EvaluateConfig
from ijepa.config.checks import check_data, check_model, check_task, parse
from ijepa.config.trust import check_targets
from ijepa.data import sources
from ijepa.data.datamodule import DataModule
from ijepa.data.limits import ValueLimit
from ijepa.data.sets import has_label
from ijepa.distributed import devices
from ijepa.evaluation import paper, tables, tasks
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.runtime import Runtime, build_runtime
from ijepa.interop import loading, transformers
from ijepa.interop.heads_file import CLASSIFIER, FILES, kind_of
from ijepa.interop.reading import FORMATS
from ijepa.masking import Masking
from ijepa.models.pretrained import PretrainedEncoder, Spec, untrained_encoder
from ijepa.run import build, checkpoint_data, encoders, folders, suggested
from ijepa.run_folder import RunFolder
from ijepa.run_folder.checkpoints import step_of
from ijepa.run_folder.config import read_config
from ijepa.run_folder.evaluation import UNFINISHED, evaluation_file, write_evaluation
from ijepa.sweeps.metric import METRICS
from ijepa.util.errors import ConfigError, InterruptedRunError, UserError
from ijepa.util.paths import CONF

RANDOM = "random"
"""``checkpoint=random``: an untrained encoder."""
NOT_IN_FOLDER_NAME = ("checkpoint", "task", "output", "hardware", "baselines", "cache", "trust")
"""Overrides that are not part of the folder's name; all others are, so that no evaluation overwrites another."""


def evaluate(composed: DictConfig) -> float | None:
    """Runs the configured evaluation; returns the headline result: the mean of the main metric over label sets.

    Raises:
        UserError: when checkpoint, data and task do not fit together.
    """
    if OmegaConf.is_missing(composed, "checkpoint") or composed.checkpoint in (None, ""):
        raise UserError(f"checkpoint is not set; add checkpoint={FORMATS}, or {RANDOM}")
    which = str(composed.encoder)
    if which not in ("target", "context"):
        raise ConfigError("encoder", which, "should be target or context")
    container = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(container, dict)
    values: dict[str, Any] = {str(k): value for k, value in container.items() if k not in TRAINING or k == "model"}
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    path = None if composed.checkpoint == RANDOM else loading.resolve_source(str(composed.checkpoint))
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
    source = sources.build(config.data, _split_seed(path, config))
    masks = None if config.task.pictures is None else _mask_sampler(path, config, encoder.spec.patch_size, first)
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
    folder = _output_folder(config, path)
    if first:
        folders.create(folder, "output")
        (folder / UNFINISHED).touch()
        images = f"{len(source.train)} training and {len(source.val)} validation images"
        print(f"{_task_names(config)} on {images}", flush=True)
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
        path and _run_folder(path).path, write_models=config.write_models,
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
        _report(config, rows, names, data, folder)
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


def _report(
    config: EvaluateConfig, rows: list[tasks.ModelResults], names: list[str], data: DataModule, folder: Path
) -> None:
    """Prints the table and writes metrics.json."""
    intervals = {row.name: row.intervals(config.seed) for row in rows}
    if any(row.results for row in rows):
        print(f"{config.checkpoint}: %, with 95 % intervals")
        Console().print(tables.results_table(rows, config.task, names, intervals))
    shown = paper.columns(rows, names, config.data.source)
    if config.task.paper is not None and shown:
        lines = paper.lines(rows, shown, intervals, config.task.paper.figures)
        Console().print(paper.table(shown, lines, len(rows)))
        paper.write(folder / "paper.md", shown, lines)
        rows[0].files.append(folder / "paper.md")
    written = {
        "config": config.model_dump(),
        "images": {"train": len(data.source.train), "val": len(data.source.val)},
        "results": {row.name: row.values for row in rows},
        "intervals": intervals,
        "details": {row.name: row.details for row in rows},
    }
    described = tasks.plain_custom_specs(config.task) if config.task.with_metrics() else {}
    written |= {METRICS: described} if described else {}
    write_evaluation(evaluation_file(folder), written)
    (folder / UNFINISHED).unlink(missing_ok=True)
    for file in [*(file for row in rows for file in row.files), evaluation_file(folder)]:
        print(f"written  {file}")


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


def _split_seed(path: Path | None, config: EvaluateConfig) -> int:
    """The run's seed if the images are the run's, so that held-out images stay held out; else the configured seed."""
    written = path and _run_folder(path).config
    if written is None or not written.is_file():
        return config.seed
    loaded = read_config(written)
    same = (loaded.data.source, loaded.data.root) == (config.data.source, config.data.root)
    return int(loaded.seed) if same else config.seed


def _mask_sampler(path: Path | None, config: EvaluateConfig, patch_size: int, first: bool) -> Masking | None:
    """The run's mask sampler, else the default one, for this grid; None if the masks do not fit."""
    written = path and _run_folder(path).config
    if written is not None and written.is_file():
        chosen = read_config(written).masking
        check_targets({"masking": OmegaConf.to_container(chosen)}, written)
    else:
        chosen = OmegaConf.load(CONF / "masking" / "multiblock.yaml")
        if first:
            print("masks    those of masking=multiblock: the checkpoint does not say what it was trained with")
    try:
        values = TypeAdapter(schema.Masking).validate_python(OmegaConf.to_container(chosen))
        rows, columns = (side // patch_size for side in config.data.image_size)
        return build.sampler_of(values, (rows, columns))
    except ValueError as error:  # ConfigError among them
        if first:
            print(f"masks    skipped: {str(error).splitlines()[0]}")
        return None


def _run_folder(path: Path) -> RunFolder:
    """The run folder of a checkpoint, or the folder of a stand-alone file."""
    return RunFolder.of(loading.select_file(path))


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


def _output_folder(config: EvaluateConfig, path: Path | None) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    others = [item for item in HydraConfig.get().overrides.task if item.partition("=")[0] not in NOT_IN_FOLDER_NAME]
    if path is None:
        return RunFolder(Path()).evaluations / folders.slug([RANDOM, _task_names(config), *others])
    file, run = loading.select_file(path), _run_folder(path)
    if not run.config.is_file():  # a stand-alone file: do not write to its folder
        name = file.parent.name if file.name == transformers.WEIGHTS else f"{file.absolute().parent.name}-{file.stem}"
        return RunFolder(Path()).evaluations / folders.slug([name, _task_names(config), *others])
    parts = [_task_names(config), *([file.stem] if step_of(file) is not None else []), *others]
    return run.evaluations / folders.slug(parts)


def _task_names(config: EvaluateConfig) -> str:
    return "paper" if config.task.paper is not None else "-".join(config.task.chosen())
