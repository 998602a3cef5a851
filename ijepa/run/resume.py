"""Resumes a run: finds its configuration and checkpoint, applies permitted changes, rejects others."""

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
from ijepa.config.trust import check_targets, targets
from ijepa.data.datamodule import DataModule
from ijepa.interop import loading
from ijepa.run import followups
from ijepa.run.good_checkpoints import better_checkpoint, complete_contents, not_finite
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import HYDRA, read_config
from ijepa.run_folder.summary import finished_summary
from ijepa.training.protocol import RunSchedule
from ijepa.training.schedule import TrainingSchedule, training_schedule
from ijepa.util.errors import ConfigError, UserError, show
from ijepa.util.paths import CONF

CHANGEABLE = (
    "run_dir", "resume", "force", "trust", "metric", "hardware", "logger", "callbacks", "callback", "task",
    "data.workers", "data.worker_timeout", "data.cache_mib", "data.root", "data.labels", "data.depth_root",
    "data.depth_scale", "data.segmentation_root", "checkpoint",  # a decoder's own checkpoints hold its weights
)  # fmt: skip
"""Keys that may change when a run is resumed: they change the training by rounding at most."""
LENGTH = ("schedule.epochs", "schedule.max_steps")
"""Keys that may change, too, if no step before the end depends on them."""
MICRO_BATCHES = ("hardware.devices", "hardware.nodes", "hardware.accumulation")
"""Keys that may not change with masking=reference, whose masks depend on the micro-batches."""
MAX_LISTED = 6
"""Differences listed in an error."""
REQUIRED_KEYS = ("state_dict", "optimizer_states", "loops", "global_step", loading.IMAGES_KEY)
"""Keys that every checkpoint of a run has."""


@dataclass(frozen=True)
class ResumePoint:
    """A run to resume, and the checkpoint to resume it from.

    Attributes:
        folder: the run's folder.
        checkpoint: the checkpoint.
        step: the checkpoint's step.
        images: identity of the training images, see `DataModule.identity`.
        shapes: shapes of the tensors in the checkpoint, by name.
        before: the configuration up to the checkpoint.
        config: the configuration of the resumed run.
        changed: keys whose changes also apply to later resumes; other changes apply only to this one.
    """

    folder: Path
    checkpoint: Path
    step: int
    images: dict[str, Any]
    shapes: dict[str, torch.Size]
    before: TrainConfig
    config: TrainConfig
    changed: list[str]


def point_from_path(path: Path, overrides: list[str]) -> ResumePoint:
    """The resume point at ``path``, a run's folder or one of its checkpoints, with ``overrides`` applied.

    Raises:
        UserError: if there is no run, or a change would affect its results (unless force=true).
    """
    folder, checkpoint = _locate(path)
    contents = _load(path, checkpoint)
    base = RunFolder(folder).newest_config(contents["global_step"])
    old = parse(TrainConfig, _compose(base, []))
    new = parse(TrainConfig, _compose(base, [item for item in overrides if _key(item) not in ("resume", "run_dir")]))
    stored, chosen = (config.model_dump(by_alias=True) for config in (old, new))
    given = {_key(item) for item in overrides}
    typed = {
        key: target
        for key, target in targets(chosen).items()
        if targets(stored).get(key) != target or key in given or key.partition(".")[0] in given & _groups()
    }
    check_targets(chosen, base, typed)
    before, after = (_flat(config.model_dump()) for config in (old, new))
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    forbidden = {key: value for key, value in changed.items() if not _may_change(key, old)}
    kept = any(key == loading.TEACHER_KEY or key.partition(".")[0] == "teacher" for key in forbidden)
    if forbidden and (not new.force or kept):  # the teacher's weights are in the run's folder and checkpoints
        items = [f"{key}={show(before.get(key))} would become {show(value)}" for key, value in forbidden.items()]
        rest = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
        remedy = "omit that, or start a new run" if kept else "omit that, start a new run, or override with force=true"
        raise UserError(f"resume={path}: {', '.join(items[:MAX_LISTED])}{rest}; {remedy}")
    lasting = [key for key in changed if key in LENGTH or key in forbidden]
    shapes = {name: tensor.shape for name, tensor in contents["state_dict"].items()}
    images = contents[loading.IMAGES_KEY]
    return ResumePoint(folder, checkpoint, contents["global_step"], images, shapes, old, new, lasting)


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """Whether the run in ``folder`` has configuration ``config`` and is finished.

    Raises:
        ConfigError: if it has another configuration.
    """
    run = RunFolder(folder)
    if not run.config.is_file():
        return False
    old = parse(TrainConfig, _compose(run.newest_config(), []))
    before, after = (_flat(each.model_dump()) for each in (old, config))
    different = {key: None for key in [*after, *before] if before.get(key) != after.get(key)}
    forbidden = [key for key in different if not _is_changeable(key)]
    if forbidden:
        items = [f"{key}={show(before.get(key))}, not {show(after.get(key))}" for key in forbidden[:MAX_LISTED]]
        raise ConfigError(
            "run_dir", folder, f"contains a run with {', '.join(items)}; give another run_dir, or remove it"
        )
    return finished_summary(run.summary) is not None


def point_in_folder(folder: Path, config: TrainConfig) -> ResumePoint | None:
    """The newest resume point of the run in ``folder``, whose configuration is ``config``.

    None if there is no complete checkpoint.

    Raises:
        ConfigError: if the weights of all complete checkpoints are not finite.
    """
    checkpoints, spoilt = RunFolder(folder).checkpoints, None
    for checkpoint in (checkpoints.last, *reversed(checkpoints.numbered())):
        contents = complete_contents(checkpoint) if checkpoint.is_file() else None
        if contents is not None and not_finite(contents) is not None:
            spoilt = checkpoint
        elif contents is not None:
            contents = _load(folder, checkpoint)
            shapes = {name: tensor.shape for name, tensor in contents["state_dict"].items()}
            config = config.model_copy(update={"resume": None})
            return ResumePoint(folder, checkpoint, contents["global_step"], contents[loading.IMAGES_KEY], shapes,
                               config, config, [])  # fmt: skip
    if spoilt is not None:
        problem = f"contains a run that has diverged: the weights in {spoilt.name} are not finite"
        raise ConfigError("run_dir", folder, f"{problem}; give another run_dir, or remove it")
    return None


def validate(resumed: ResumePoint, module: nn.Module, data: DataModule, steps: RunSchedule) -> None:
    """Checks that the resumed run has the networks, images and length of the checkpoint.

    Raises:
        UserError: when tensors have other shapes; and, unless force=true, when the images differ, the run would end
            before the checkpoint's step, or its length changes after the cooldown has begun.
    """
    state = module.state_dict()
    wrong = [name for name in state if resumed.shapes.get(name) != state[name].shape]
    wrong += [name for name in resumed.shapes if name not in state]
    if wrong:
        problem = f"{len(wrong)} tensors do not match the networks as configured now, e.g. {wrong[0]}"
        raise ConfigError("resume", resumed.checkpoint, f"{problem}; omit what changes them, or start a new run")
    if resumed.config.force:
        return
    saved, now = resumed.images, data.identity
    if saved != now:
        same_count = saved["images"] == now["images"]
        counts = "others" if same_count else f"{saved['images']} training images, now {now['images']}"
        problem = f"not the images that the run started with ({counts}); restore them, or override with force=true"
        raise ConfigError("data.root", resumed.config.data.root, problem)
    old = resumed.before
    before = training_schedule(old.schedule, old.optimizer, old.data.batch_size, now["images"], TrainingSchedule)
    if steps.max_steps < resumed.step:
        problem = f"the checkpoint is already after step {resumed.step}; give more steps"
        raise ConfigError("schedule.max_steps", steps.max_steps, problem)
    constant = min(each.max_steps - each.cooldown_steps for each in (before, steps))
    if before.max_steps != steps.max_steps and resumed.step > constant:
        problem = f"the checkpoint is after step {constant}, where the cooldown begins; change the length before it"
        raise ConfigError("schedule.max_steps", steps.max_steps, problem)


def later_config(resumed: ResumePoint, images: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration that later resumes start from; None if it is unchanged.

    Args:
        resumed: the run.
        images: identity of the training images now; if they changed (force=true), the change is kept.
    """
    changed = resumed.changed + (["data.root"] if images != resumed.images else [])
    if not changed:
        return None
    values, before, after = resumed.config.model_dump(), resumed.before.model_dump(), resumed.config.model_dump()
    for key, source in [*((key, before) for key in CHANGEABLE), *((key, after) for key in changed)]:
        *sections, name = key.split(".")
        target = values
        for section in sections:
            target, source = target[section], source[section]
        target[name] = source[name]
    return values


def _locate(path: Path) -> tuple[Path, Path]:
    if not path.exists():
        raise ConfigError("resume", path, "no such run folder or checkpoint")
    absolute = path.absolute()
    folder = absolute if path.is_dir() else absolute.parent.parent
    run = RunFolder(folder)
    checkpoint = run.checkpoints.last if path.is_dir() else absolute
    if path.is_dir() and not checkpoint.exists():  # killed between writing the newest checkpoint and linking it
        checkpoint = next(reversed(run.checkpoints.numbered()), checkpoint)
    for file in (run.config, checkpoint):
        if not file.is_file() and RunFolder(run.teacher_run).config.is_file():
            raise ConfigError("resume", path, f"only its teacher has a checkpoint; {followups.again(folder)}")
        if not file.is_file():
            raise ConfigError("resume", path, f"no run to resume: {file} is missing")
    return folder, checkpoint


def _load(path: Path, checkpoint: Path) -> dict[str, Any]:
    """The checkpoint, memory-mapped; if it is broken, the error names the newest good one."""
    try:
        contents = loading.load_checkpoint(checkpoint, mapped=True)
    except ConfigError as error:
        problem = f"{checkpoint.name} is not a complete checkpoint; {better_checkpoint(checkpoint)}"
        raise ConfigError("resume", path, problem) from error
    missing = [name for name in REQUIRED_KEYS if name not in contents]
    if missing:
        problem = f"{checkpoint.name} is not a checkpoint of a run: it contains no {missing[0]}"
        raise ConfigError("resume", path, problem)
    spoilt = not_finite(contents)
    if spoilt is not None:
        problem = (
            f"{checkpoint.name} is of a run that has diverged: {spoilt} is not finite; {better_checkpoint(checkpoint)}"
        )
        raise ConfigError("resume", path, problem)
    return contents


def _compose(file: Path, overrides: list[str]) -> DictConfig:
    """The configuration in ``file`` with Hydra overrides; GROUP=OPTION replaces the whole group."""
    replaced = [_key(item) for item in overrides if _key(item) in _groups() and item[0].isalpha()]
    items = [f"+{item}" if _key(item) in replaced else item for item in overrides]
    values = read_config(file)
    for group in replaced:
        values.pop(group, None)
    values.pop("hydra", None)  # a file may be foreign: it chooses neither what Hydra reads, nor whom to trust
    values["defaults"] = HYDRA
    values["trust"] = []
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(values, Path(folder) / file.name)
        search = create_config_search_path(str(CONF))
        search.prepend("run", folder)
        for source in HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ():
            if source.provider == "command-line":  # --config-dir; Hydra needs "schema" last
                search.prepend(source.provider, f"{source.schema}://{source.path}", "schema")
        loader = ConfigLoaderImpl(config_search_path=search)
        composed = loader.load_configuration(file.stem, overrides=items, run_mode=RunMode.RUN, from_shell=False)
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _groups() -> set[str]:
    return {*COMBINED, *(path.name for path in CONF.iterdir() if path.is_dir())}


def _key(override: str) -> str:
    parsed = OverridesParser.create().parse_override(override)
    return str(parsed.key_or_group)


def _may_change(key: str, old: TrainConfig) -> bool:
    if key in LENGTH:
        schedule = old.schedule
        constant = all(curve.shape == "constant" for curve in (schedule.weight_decay, schedule.momentum))
        return constant and schedule.learning_rate.shape in ("constant", "cooldown")
    if key in MICRO_BATCHES and old.masking.name == "reference":
        return False
    return _is_changeable(key)


def _is_changeable(key: str) -> bool:
    return any(key == changeable or key.startswith(f"{changeable}.") for changeable in CHANGEABLE)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
