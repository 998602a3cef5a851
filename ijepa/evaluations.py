"""One task on one checkpoint: table, baselines and metrics.json."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ijepa import build, checkpoint, folders, hardware, tables
from ijepa.checks import check_data, check_task, parse, saved
from ijepa.config import TRAINING, Data, EvaluateConfig
from ijepa.data import sources
from ijepa.errors import ConfigError, UserError
from ijepa.evaluation import tasks
from ijepa.evaluation.tasks import Row
from ijepa.files import write_json
from ijepa.models.pretrained import Spec

UNNAMED = ("checkpoint", "task", "output", "hardware", "baselines")
"""What does not show in the name of an evaluation's folder; everything else does: no evaluation replaces another."""


def evaluate(composed: DictConfig) -> float | None:
    """Evaluates what the configuration names; returns the headline result.

    Raises:
        UserError: when checkpoint, data and task do not fit.
    """
    if OmegaConf.is_missing(composed, "checkpoint") or composed.checkpoint in (None, ""):
        raise UserError(f"checkpoint is not set; add checkpoint={checkpoint.FORMATS}")
    path = Path(str(composed.checkpoint)).expanduser()
    which = str(composed.encoder)
    if which not in ("target", "context"):
        raise ConfigError("encoder", which, "should be target or context")
    encoder = checkpoint.load_encoder(path, which)  # type: ignore[arg-type]  # checked above
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    values = {name: value for name, value in values.items() if name not in TRAINING}
    values["data"] = _data(values["data"], path, encoder.spec)
    if values["data"]["root"] == "???":
        raise UserError("data.root is not set; add data.root=FOLDER")
    config = parse(EvaluateConfig, {str(key): value for key, value in values.items()})
    _fits(config.data, encoder.spec)
    check_data(config.data)
    if config.hardware.devices * config.hardware.nodes > 1:
        raise ConfigError("hardware.devices", config.hardware.devices, "evaluations run on one device; 1 would do")
    check_task(config.task)
    runtime = hardware.runtime(config.hardware)
    source = sources.build(config.data, _split_seed(path, config))
    data = build.data(config.data, source, None, 0, config.hardware, config.seed)
    names = tasks.label_sets(data)
    if not names:
        raise ConfigError(
            "data.root", config.data.root, "needs labels: a folder per class, for training and validation"
        )
    source.prepare()
    folder = _output(config, path)
    folders.make(folder, "output")
    print(f"{_names(config)} on {len(source.train)} training and {len(source.val)} validation images", flush=True)
    rows = [Row(f"{which} encoder", tasks.evaluate(config.task, runtime.pooled(encoder), data, runtime, config.seed))]
    if config.baselines:
        rows += tasks.baselines(config.task, encoder.spec, data, runtime, config.seed)
    print(f"{path}: accuracy, %")
    Console().print(tables.accuracies(rows, config.task, names))
    results = {row.name: row.results for row in rows}
    counts = {"train": len(source.train), "val": len(source.val)}
    write_json(folder / "metrics.json", {"config": config.model_dump(), "images": counts, "results": results})
    print(f"metrics {folder / 'metrics.json'}")
    found = tasks.headlines(config.task, rows[0].results, names)
    return sum(found.values()) / len(found)


def _data(composed: dict[str, Any], path: Path, spec: Spec) -> dict[str, Any]:
    """The data to evaluate on: what the command line says, else the run's own; as the encoder wants it."""
    given = {item.lstrip("+").partition("=")[0] for item in HydraConfig.get().overrides.task}
    written = _folder(path) / "config.yaml"
    if "data" in given:
        base = dict(composed)
    elif written.is_file():
        base = dict(saved(written).data)
    else:
        raise UserError(f"data is not set, and {path} has no config.yaml beside it; add data=folder data.root=FOLDER")
    for name in ("mean", "std"):
        if f"data.{name}" in given:
            raise ConfigError(f"data.{name}", composed[name], "the encoder comes with its own; leave it out")
    plain = spec.plain()
    base |= {name: plain[name] for name in ("image_size", "channels", "mean", "std", "eval_crop")}
    return base | {name: value for name, value in composed.items() if f"data.{name}" in given}


def _split_seed(path: Path, config: EvaluateConfig) -> int:
    """The run's own seed on the run's own images: what it held out must stay held out."""
    written = _folder(path) / "config.yaml"
    if not written.is_file():
        return config.seed
    loaded = saved(written)
    same = (loaded.data.source, loaded.data.root) == (config.data.source, config.data.root)
    return int(loaded.seed) if same else config.seed


def _folder(path: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or that of a lone file."""
    file = checkpoint.find(path)
    return file.parent.parent if file.parent.name == "checkpoints" else file.parent


def _fits(data: Data, spec: Spec) -> None:
    if data.channels != spec.channels:
        raise ConfigError("data.channels", data.channels, f"the encoder was trained on {spec.channels}")
    if any(side % spec.patch_size for side in data.image_size):
        problem = f"not divisible by the encoder's patches of {spec.patch_size} pixels"
        raise ConfigError("data.image_size", data.image_size, problem)


def _output(config: EvaluateConfig, path: Path) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    others = [item for item in HydraConfig.get().overrides.task if item.partition("=")[0] not in UNNAMED]
    file, run = checkpoint.find(path), _folder(path)
    if not (run / "config.yaml").is_file():  # a file of its own, whose folder is not ours to write to
        return Path("evaluation") / folders.slug([file.stem, _names(config), *others])
    parts = [_names(config), *([file.stem] if file.stem.startswith("step-") else []), *others]
    return run / "evaluation" / folders.slug(parts)


def _names(config: EvaluateConfig) -> str:
    return "-".join(name for name, task in config.task if task is not None)
