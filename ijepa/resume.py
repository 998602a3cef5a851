"""Going on with a run: its configuration with what may change, its last checkpoint, and what stands in the way."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ijepa import checkpoint, plan
from ijepa.checks import parse
from ijepa.config import TrainConfig
from ijepa.data.datamodule import DataModule
from ijepa.errors import ConfigError, UserError, show

CONF = Path(__file__).resolve().parent.parent / "conf"
FREE = ("run_dir", "resume", "force", "hardware", "logger", "callbacks", "task", "data.workers", "data.root")
"""What may change in a run that goes on: it changes what is computed by rounding at most."""
LENGTH = ("schedule.epochs", "schedule.max_steps")
"""What may change, too, where nothing before the end depends on it."""
MICRO_BATCHES = ("hardware.devices", "hardware.nodes", "hardware.accumulation")
"""What the reference implementation's masks depend on."""

SHOWN = 6
"""Differences that are listed."""


class Resumed(NamedTuple):
    """A run to go on with.

    folder: of the run.
    last: the checkpoint to go on from.
    config: from here on.
    changed: what differs from the run so far and is no matter of hardware or logging; dotted keys.
    """

    folder: Path
    last: Path
    config: TrainConfig
    changed: dict[str, Any]


def resume(path: Path, overrides: list[str]) -> Resumed:
    """The run at ``path``, a run's folder or one of its checkpoints, as ``overrides`` change it.

    Raises:
        UserError: when there is no run, or something changes that it has been built on (unless force=true).
    """
    folder, last = _find(path)
    base = _latest(folder)
    old = parse(TrainConfig, _compose(base, []))
    new = parse(TrainConfig, _compose(base, [item for item in overrides if _key(item) not in ("resume", "run_dir")]))
    before, after = (_flat(config.model_dump()) for config in (old, new))
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    faults = {key: value for key, value in changed.items() if not _free(key, old)}
    if faults and not new.force:
        items = [f"{key}={show(before.get(key))} would become {show(value)}" for key, value in faults.items()]
        listed = ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
        raise UserError(f"resume={path}: {listed}; leave that out, start a new run, or insist with force=true")
    lasting = {key: value for key, value in changed.items() if key in LENGTH or key in faults}
    return Resumed(folder, last, new, lasting)


def done(resumed: Resumed) -> int:
    """Steps that the checkpoint has behind it."""
    return int(checkpoint.load(resumed.last).get("global_step", 0))


def refuse(resumed: Resumed, data: DataModule, steps: plan.Plan) -> None:
    """Refuses other images than before, and a run made longer from within its cooldown.

    Raises:
        UserError: says what differs (unless force=true).
    """
    if resumed.config.force:
        return
    contents = checkpoint.load(resumed.last)
    was, now = contents[checkpoint.IMAGES_KEY], data.identity
    if was != now:
        counts = f"{was['images']} training images, now {now['images']}" if was["images"] != now["images"] else "others"
        problem = f"not the images that the run began with ({counts}); bring them back, or insist with force=true"
        raise ConfigError("data.root", resumed.config.data.root, problem)
    old = parse(TrainConfig, _compose(_latest(resumed.folder), []))
    before = plan.plan(old.schedule, old.optimizer, old.data.batch_size, now["images"])
    if steps.max_steps < contents["global_step"]:
        problem = f"the checkpoint is already after step {contents['global_step']}"
        raise ConfigError("schedule.max_steps", steps.max_steps, problem)
    constant = min(plan.max_steps - plan.cooldown_steps for plan in (before, steps))
    if before.max_steps != steps.max_steps and contents["global_step"] > constant:
        problem = f"the checkpoint is after step {constant}, where the cooldown begins; change the length before it"
        raise ConfigError("schedule.max_steps", steps.max_steps, problem)


def lasting(resumed: Resumed) -> dict[str, Any] | None:
    """The configuration that further resumes start from, where it is not the one that the run has."""
    if not resumed.changed:
        return None
    values = resumed.config.model_dump()
    old = parse(TrainConfig, _compose(_latest(resumed.folder), [])).model_dump()
    for key in FREE:  # the run's own stay
        *sections, name = key.split(".")
        to, source = values, old
        for section in sections:
            to, source = to[section], source[section]
        to[name] = source[name]
    return values


def _find(path: Path) -> tuple[Path, Path]:
    if not path.exists():
        raise ConfigError("resume", path, "no such run folder or checkpoint")
    whole = path.absolute()
    last = whole / "checkpoints" / "last.ckpt" if path.is_dir() else whole
    folder = whole if path.is_dir() else whole.parent.parent
    for needed in (folder / "config.yaml", last):
        if not needed.is_file():
            raise ConfigError("resume", path, f"no run to go on with: {needed} is missing")
    return folder, last


def _latest(folder: Path) -> Path:
    """config.yaml, or what the last resume that changed something lasting has written."""
    written = [path for path in folder.glob("config-*.yaml") if path.stem[7:].isdecimal()]
    return max(written, key=lambda path: int(path.stem[7:]), default=folder / "config.yaml")


def _compose(file: Path, overrides: list[str]) -> DictConfig:
    """The configuration in ``file`` under Hydra overrides; an option of a group takes the place of what it holds."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    chosen = [_key(item) for item in overrides if _key(item) in groups and item[0].isalpha()]
    items = [f"+{item}" if _key(item) in chosen else item for item in overrides]
    values = OmegaConf.load(file)
    assert isinstance(values, DictConfig)
    for group in chosen:
        values.pop(group, None)
    with tempfile.TemporaryDirectory() as folder:
        OmegaConf.save(values, Path(folder) / file.name)
        search = create_config_search_path(str(CONF))
        search.prepend("run", folder)
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
