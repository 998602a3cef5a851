"""Resuming a run: its configuration with permitted changes, its last checkpoint, and reasons not to resume."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from ijepa.config import COMBINED, TrainConfig
from ijepa.config.checks import parse
from ijepa.data.datamodule import DataModule
from ijepa.interop import loading
from ijepa.run_folder import CheckpointFolder, RunFolder
from ijepa.run_folder.config import read_config
from ijepa.run_folder.summary import finished_summary
from ijepa.training.protocol import Scheduled
from ijepa.training.schedule import TrainingSchedule, training_schedule
from ijepa.util.errors import ConfigError, UserError, show
from ijepa.util.paths import CONF

FREE = ("run_dir", "resume", "force", "metric", "hardware", "logger", "callbacks", "callback", "task", "data.workers",
        "data.root", "data.depth_root", "data.depth_scale", "data.segmentation_root")  # fmt: skip
"""Keys that may change when a run is resumed: they change results by rounding at most."""
LENGTH = ("schedule.epochs", "schedule.max_steps")
"""Keys that may change as well if nothing before the end depends on them."""
MICRO_BATCHES = ("hardware.devices", "hardware.nodes", "hardware.accumulation")
"""What the reference implementation's masks depend on."""

SHOWN = 6
"""Differences that are listed."""
NEEDED = ("state_dict", "optimizer_states", "loops", "global_step", loading.IMAGES_KEY)
"""Keys in a checkpoint of a training run."""


@dataclass(frozen=True)
class Resumed:
    """A run to resume.

    Attributes:
        folder: the run's folder.
        last: the checkpoint to resume from.
        step: the checkpoint's step.
        images: identity of the training images.
        shapes: shapes of the networks' tensors.
        before: the configuration so far.
        config: the configuration from here on.
        changed: keys whose changes also apply to later resumes; other changes apply to this one only.
    """

    folder: Path
    last: Path
    step: int
    images: dict[str, Any]
    shapes: dict[str, torch.Size]
    before: TrainConfig
    config: TrainConfig
    changed: list[str]


def resume(path: Path, overrides: list[str]) -> Resumed:
    """The run at ``path``, a run's folder or one of its checkpoints, as ``overrides`` change it.

    Raises:
        UserError: if there is no run, or a change would affect its results (unless force=true).
    """
    folder, last = _find(path)
    contents = _load(path, last)
    base = RunFolder(folder).newest_config(contents["global_step"])
    old = parse(TrainConfig, _compose(base, []))
    new = parse(TrainConfig, _compose(base, [item for item in overrides if _key(item) not in ("resume", "run_dir")]))
    before, after = (_flat(config.model_dump()) for config in (old, new))
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    faults = {key: value for key, value in changed.items() if not _free(key, old)}
    if faults and not new.force:
        items = [f"{key}={show(before.get(key))} would become {show(value)}" for key, value in faults.items()]
        listed = ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
        raise UserError(f"resume={path}: {listed}; omit that, start a new run, or override with force=true")
    lasting = [key for key in changed if key in LENGTH or key in faults]
    shapes = {name: tensor.shape for name, tensor in contents["state_dict"].items()}
    images = contents[loading.IMAGES_KEY]
    return Resumed(folder, last, contents["global_step"], images, shapes, old, new, lasting)


def finished(folder: Path, config: TrainConfig) -> bool:
    """Whether the run in ``folder`` has configuration ``config`` and is finished.

    Raises:
        ConfigError: if it has another configuration.
    """
    run = RunFolder(folder)
    if not run.config.is_file():
        return False
    old = parse(TrainConfig, _compose(run.newest_config(), []))
    before, after = (_flat(each.model_dump()) for each in (old, config))
    keys = {key: None for key in [*after, *before] if before.get(key) != after.get(key)}
    other = [key for key in keys if not any(key == free or key.startswith(f"{free}.") for free in FREE)]
    if other:
        items = [f"{key}={show(before.get(key))}, not {show(after.get(key))}" for key in other[:SHOWN]]
        raise ConfigError(
            "run_dir", folder, f"contains a run with {', '.join(items)}; give another run_dir, or remove it"
        )
    return finished_summary(run.summary) is not None


def again(folder: Path, config: TrainConfig) -> Resumed | None:
    """The stopped run in ``folder``, which has configuration ``config``; None if it has no complete checkpoint."""
    checkpoints = RunFolder(folder).checkpoints
    for last in (checkpoints.last, *reversed(checkpoints.numbered())):
        if last.is_file() and _whole(last):
            contents = _load(folder, last)
            shapes = {name: tensor.shape for name, tensor in contents["state_dict"].items()}
            config = config.model_copy(update={"resume": None})
            return Resumed(folder, last, contents["global_step"], contents[loading.IMAGES_KEY], shapes, config,
                           config, [])  # fmt: skip
    return None


def validate(resumed: Resumed, module: nn.Module, data: DataModule, steps: Scheduled) -> None:
    """Rejects networks of another shape, other images, and changes of the run's length within its cooldown.

    Raises:
        UserError: says what differs (with force=true: for networks only).
    """
    state = module.state_dict()
    wrong = [name for name in state if resumed.shapes.get(name) != state[name].shape]
    wrong += [name for name in resumed.shapes if name not in state]
    if wrong:
        problem = f"{len(wrong)} tensors do not match the networks as configured now, e.g. {wrong[0]}"
        raise ConfigError("resume", resumed.last, f"{problem}; omit what changes them, or start a new run")
    if resumed.config.force:
        return
    was, now = resumed.images, data.identity
    if was != now:
        counts = f"{was['images']} training images, now {now['images']}" if was["images"] != now["images"] else "others"
        problem = f"not the images that the run started with ({counts}); restore them, or override with force=true"
        raise ConfigError("data.root", resumed.config.data.root, problem)
    old = resumed.before
    before = training_schedule(old.schedule, old.optimizer, old.data.batch_size, now["images"], TrainingSchedule)
    if steps.max_steps < resumed.step:
        problem = f"the checkpoint is already after step {resumed.step}"
        raise ConfigError("schedule.max_steps", steps.max_steps, problem)
    constant = min(each.max_steps - each.cooldown_steps for each in (before, steps))
    if before.max_steps != steps.max_steps and resumed.step > constant:
        problem = f"the checkpoint is after step {constant}, where the cooldown begins; change the length before it"
        raise ConfigError("schedule.max_steps", steps.max_steps, problem)


def lasting(resumed: Resumed, images: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration that later resumes start from, or None if it is unchanged.

    Args:
        resumed: the run.
        images: identity of the training images now; if they changed (force=true), the change is kept.
    """
    changed = resumed.changed + (["data.root"] if images != resumed.images else [])
    if not changed:
        return None
    values, before, after = resumed.config.model_dump(), resumed.before.model_dump(), resumed.config.model_dump()
    for key, source in [*((key, before) for key in FREE), *((key, after) for key in changed)]:
        *sections, name = key.split(".")
        to = values
        for section in sections:
            to, source = to[section], source[section]
        to[name] = source[name]
    return values


def _find(path: Path) -> tuple[Path, Path]:
    if not path.exists():
        raise ConfigError("resume", path, "no such run folder or checkpoint")
    whole = path.absolute()
    folder = whole if path.is_dir() else whole.parent.parent
    run = RunFolder(folder)
    last = run.checkpoints.last if path.is_dir() else whole
    if path.is_dir() and not last.exists():  # killed between writing the newest and naming it
        last = next(reversed(run.checkpoints.numbered()), last)
    for needed in (run.config, last):
        if not needed.is_file():
            raise ConfigError("resume", path, f"no run to resume: {needed} is missing")
    return folder, last


def _load(path: Path, last: Path) -> dict[str, Any]:
    """The checkpoint, memory-mapped; if it is incomplete, the error names the newest complete one."""
    try:
        contents = loading.load_checkpoint(last, mapped=True)
    except ConfigError as fault:
        whole = next(
            (path for path in reversed(CheckpointFolder(last.parent).numbered()) if path != last and _whole(path)), None
        )
        problem = f"try resume={whole}, the newest complete one" if whole else "and there is no complete one"
        raise ConfigError("resume", path, f"{last.name} is not a complete checkpoint; {problem}") from fault
    missing = [name for name in NEEDED if name not in contents]
    if missing:
        raise ConfigError("resume", path, f"{last.name} is not a checkpoint of a run: it contains no {missing[0]}")
    return contents


def _whole(path: Path) -> bool:
    try:
        loading.load_checkpoint(path, mapped=True)
    except UserError:
        return False
    return True


def _compose(file: Path, overrides: list[str]) -> DictConfig:
    """The configuration in ``file`` with Hydra overrides; an option of a config group replaces the whole group."""
    groups = {*COMBINED, *(path.name for path in CONF.iterdir() if path.is_dir())}
    chosen = [_key(item) for item in overrides if _key(item) in groups and item[0].isalpha()]
    items = [f"+{item}" if _key(item) in chosen else item for item in overrides]
    values = read_config(file)
    for group in chosen:
        values.pop(group, None)
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(values, Path(folder) / file.name)
        search = create_config_search_path(str(CONF))
        search.prepend("run", folder)
        for source in HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ():
            if source.provider == "command-line":  # --config-dir
                search.prepend(source.provider, f"{source.schema}://{source.path}", "schema")  # which has to be last
        loader = ConfigLoaderImpl(config_search_path=search)
        composed = loader.load_configuration(file.stem, overrides=items, run_mode=RunMode.RUN, from_shell=False)
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _key(override: str) -> str:
    parsed = OverridesParser.create().parse_override(override)
    return str(parsed.key_or_group)


def _free(key: str, old: TrainConfig) -> bool:
    if key in LENGTH:
        schedule = old.schedule
        constant = all(curve.shape == "constant" for curve in (schedule.weight_decay, schedule.momentum))
        return constant and schedule.learning_rate.shape in ("constant", "cooldown")
    if key in MICRO_BATCHES and old.masking.name == "reference":
        return False
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
