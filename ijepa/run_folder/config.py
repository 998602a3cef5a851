"""config.yaml: a run's configuration; files of older versions are upgraded when read."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ijepa.util import commands
from ijepa.util.errors import UserError
from ijepa.util.files import write_text
from ijepa.util.paths import CONF
from ijepa.util.reading import check_yaml, read_text

CHOSEN = {"sweeper": "grid", "job_logging": "none", "hydra_logging": "none"}
HYDRA = ["hydra_setup", *({f"override hydra/{group}": name} for group, name in CHOSEN.items()), "_self_"]
"""The defaults list that lets Hydra compose the file as a primary configuration."""

REPEAT, VERSION_LINE = "# Repeat: ", "# Version: "
"""How the comments start with which a run's config.yaml begins."""
ANY_REFERENCE = re.compile(r"(\\*)\$\{")
"""Of a plain value, in which backslashes have no meaning."""
REFERENCE = re.compile(r"(?<!\\)((?:\\\\)*)\$\{")
"""The start of a reference to another key or a resolver, unless a backslash makes it text."""


def add_reporting_keys(values: DictConfig) -> DictConfig:
    """Version 1 to 2: adds keys of callbacks that did not exist; none changes a result."""
    return _with_defaults(values, "callbacks", "callbacks/default.yaml")


def name_loggers(values: DictConfig) -> DictConfig:
    """Version 2 to 3: the keys of the only logger move from ``logger`` to ``logger.NAME``."""
    stored = values.get("logger")
    logger = None if stored is None else OmegaConf.to_container(stored)  # references stay text
    name = logger.get("name") if isinstance(logger, dict) else None
    if isinstance(logger, dict) and isinstance(name, str):
        values["logger"] = {name: {key: value for key, value in logger.items() if key != "name"}}
    for kind in {path.stem for path in (CONF / "logger").glob("*.yaml")} & set(values.get("logger") or {}):
        _with_defaults(values["logger"], kind, f"logger/{kind}.yaml")
    return values


def add_limits(values: DictConfig) -> DictConfig:
    """Version 3 to 4: adds limits that did not exist; they change no result of a run that has not failed."""
    if isinstance(values.get("data"), DictConfig):
        crops = OmegaConf.load(CONF / "data" / "_crops.yaml")
        limits = {key: OmegaConf.select(crops, key) for key in ("max_deviations", "worker_timeout")}
        values["data"] = OmegaConf.merge(limits, values["data"])
    return _with_defaults(values, "callbacks", "callbacks/default.yaml")


def add_image_cache(values: DictConfig) -> DictConfig:
    """Version 4 to 5: adds the size of the cache of decoded images, which changes no result."""
    if isinstance(values.get("data"), DictConfig):
        size = OmegaConf.select(OmegaConf.load(CONF / "data" / "_crops.yaml"), "cache_mib")
        values["data"] = OmegaConf.merge({"cache_mib": size}, values["data"])
    return values


def _with_defaults(values: DictConfig, section: str, file: str) -> DictConfig:
    """Adds the keys of an option's current file that a section lacks."""
    if (CONF / file).is_file():
        values[section] = OmegaConf.merge(OmegaConf.load(CONF / file), values.get(section) or {})
    return values


UPGRADES: list[Callable[[DictConfig], DictConfig]] = [add_reporting_keys, name_loggers, add_limits, add_image_cache]
"""The first upgrades version 1 to version 2, and so on. A file without its comments counts as version 1, so upgrades do
not change values that are upgraded already."""
VERSION = len(UPGRADES) + 1
"""The version that `write_config` writes, in a comment: a key would become part of the configuration that Hydra
composes from the file."""


def write_config(path: Path, values: dict[str, Any], trust: str = "") -> None:
    """Writes a run's configuration atomically, with run_dir set to its folder, and resume and force reset.

    ``trust``: the end of the command that repeats the run, see `ijepa.config.trust.typed_trust`.
    """
    saved = {"defaults": HYDRA, **values, "run_dir": str(path.parent), "resume": None, "force": False, "trust": []}
    train = commands.command_line("train")
    options = f"--config-dir {commands.typed(path.parent)} --config-name {path.stem} run_dir=NEW{trust}"
    write_text(path, f"{REPEAT}{train} {options}\n{to_text(saved)}")


def is_written_by_run(text: str) -> bool:
    """Whether `write_config` has written a configuration, by its comments."""
    return text.lstrip("\ufeff").startswith((REPEAT, VERSION_LINE))


def has_own_defaults(values: DictConfig) -> bool:
    """Whether the defaults list of a configuration is none, or that of `write_config`."""
    found = OmegaConf.to_container(values).get("defaults") or []  # type: ignore[union-attr]
    return isinstance(found, list) and all(item in HYDRA for item in found)


def as_text(values: DictConfig | ListConfig) -> dict[str, Any]:
    """The plain values of the configuration of a run, in which every reference is text."""
    found: dict[str, Any] = _escaped(OmegaConf.to_container(values), REFERENCE)
    return found


def read_config(path: Path) -> DictConfig:
    """A run's configuration, upgraded to the current version.

    Raises:
        UserError: when ``path`` is not a configuration, or one of a newer version of this software.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError):
        text = ""
    return from_text(text, path)


def to_text(values: dict[str, Any]) -> str:
    """A configuration as YAML, with its version."""
    return f"{VERSION_LINE}{VERSION}\n{OmegaConf.to_yaml(OmegaConf.create(_escaped(values, ANY_REFERENCE)))}"


def from_text(text: str, path: Path) -> DictConfig:
    """The configuration in the text of the file ``path``, upgraded to the current version.

    Raises:
        UserError: when it is not a configuration, or one of a newer version of this software.
    """
    try:
        check_yaml(text)
        values = OmegaConf.create(as_text(OmegaConf.create(text)))
    except Exception:  # whatever the YAML parser raises
        values = None  # type: ignore[assignment]
    if not isinstance(values, DictConfig) or not isinstance(values.get("data"), DictConfig) or "seed" not in values:
        raise UserError(f"{path}: not the configuration of a run; restore the file that train.py wrote")
    version = version_of(text)
    if version > VERSION:
        raise UserError(f"{path}: version {version}, of a newer release; update this software, which knows {VERSION}")
    for upgrade in UPGRADES[version - 1 :]:
        values = upgrade(values)
    return values


def _escaped(value: Any, reference: re.Pattern[str]) -> Any:
    """``value`` with every reference escaped: the configuration of a run, perhaps a foreign one, refers to nothing.

    It would otherwise show environment variables, or call resolvers.
    """
    if isinstance(value, dict):
        return {name: _escaped(each, reference) for name, each in value.items()}
    if isinstance(value, list):
        return [_escaped(each, reference) for each in value]
    return reference.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def version_of(text: str) -> int:
    """The version in the comments of a config.yaml; 1 if there is none."""
    match = re.search(r"^# Version: (\d{1,9})$", text, re.MULTILINE)
    return max(int(match[1]), 1) if match else 1
