"""config.yaml: what a run was configured with, as any version of this software has written it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ijepa.util import commands
from ijepa.util.errors import UserError
from ijepa.util.files import write_text
from ijepa.util.paths import CONF

CHOSEN = {"sweeper": "grid", "job_logging": "none", "hydra_logging": "none"}
HYDRA = ["hydra_setup", *({f"override hydra/{group}": name} for group, name in CHOSEN.items()), "_self_"]
"""What the file needs to be a primary configuration of its own."""


def add_reporting_keys(values: DictConfig) -> DictConfig:
    """From version 1: loggers and callbacks get the keys that they have now; none changes what is computed."""
    return _filled(values, "callbacks", "callbacks/default.yaml")


def name_loggers(values: DictConfig) -> DictConfig:
    """From version 2, where a run had one logger beside metrics.csv, its keys beside its ``name``."""
    logger = values.get("logger")
    name = None if logger is None else logger.get("name")
    if isinstance(name, str):
        values["logger"] = {name: {key: value for key, value in logger.items() if key != "name"}}
    for kind in values.get("logger") or {}:
        _filled(values["logger"], kind, f"logger/{kind}.yaml")
    return values


def _filled(values: DictConfig, section: str, file: str) -> DictConfig:
    """With the keys that an option of today has."""
    if (CONF / file).is_file():
        values[section] = OmegaConf.merge(OmegaConf.load(CONF / file), values.get(section) or {})
    return values


UPGRADES: list[Callable[[DictConfig], DictConfig]] = [add_reporting_keys, name_loggers]
"""The first makes version 2 of version 1, and so on. A file that has lost its comments counts as version 1, so each
step leaves alone what is as it makes it."""
VERSION = len(UPGRADES) + 1
"""What `write_config` writes. It stands in a comment: Hydra composes the file as it is, and a key would be one of the
configuration."""


def write_config(path: Path, values: dict[str, Any]) -> None:
    """Writes a configuration into its run's folder, atomically; it belongs to that folder, and resumes nothing."""
    saved = {"defaults": HYDRA, **values, "run_dir": str(path.parent), "resume": None, "force": False}
    header = f"# Repeat: {commands.typed('train')} --config-dir {path.parent} --config-name {path.stem} run_dir=NEW\n"
    header += f"# Version: {VERSION}\n"
    write_text(path, header + OmegaConf.to_yaml(OmegaConf.create(saved)))


def read_config(path: Path) -> DictConfig:
    """The configuration that a run has written, with the keys of today.

    Raises:
        UserError: when ``path`` holds none any more, or one of a newer version of this software.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = OmegaConf.create(text)
    except Exception:  # whatever the YAML parser makes of it
        values = None  # type: ignore[assignment]
    if not isinstance(values, DictConfig) or not isinstance(values.get("data"), DictConfig) or "seed" not in values:
        raise UserError(f"{path}: not the configuration of a run; restore the file that train.py wrote")
    version = version_of(text)
    if version > VERSION:
        raise UserError(f"{path}: version {version}, of a newer release; update this software, which knows {VERSION}")
    for upgrade in UPGRADES[version - 1 :]:
        values = upgrade(values)
    return values


def version_of(text: str) -> int:
    """The version that a configuration's comments name; 1 where they name none."""
    match = re.search(r"^# Version: (\d{1,9})$", text, re.MULTILINE)
    return max(int(match[1]), 1) if match else 1
