"""Old keys on the command line: `logger.project` (from when a run had one logger) becomes `logger.wandb.project`."""

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from ijepa.cli import config_files
from ijepa.config import WandbLogger
from ijepa.run_folder.config import as_text

KEY = re.compile(rf"([+~]*)logger\.({'|'.join(WandbLogger.model_fields)})(?![\w.])")
CHOICE = re.compile(r"\+*logger=(.*)")


def upgrade_arguments(
    arguments: Sequence[str], config_dir: str | None = None, config_name: str | None = None
) -> list[str]:
    """The command line with current keys.

    Args:
        arguments: overrides and flags; flags are not changed.
        config_dir: ``--config-dir``.
        config_name: ``--config-name``; nothing is changed if it is an old run's configuration, which has the old keys.
    """
    chosen = [match[1] for argument in arguments if (match := CHOICE.match(argument))]
    if (chosen and "wandb" not in re.findall(r"\w+", chosen[-1])) or _has_flat_logger(config_dir, config_name):
        return list(arguments)  # the keys belong to another logger
    return [KEY.sub(r"\1logger.wandb.\2", argument) if KEY.match(argument) else argument for argument in arguments]


def _has_flat_logger(config_dir: str | None, config_name: str | None) -> bool:
    if config_dir is None or config_name is None:
        return False
    file = Path(config_dir) / f"{config_name.removesuffix('.yaml')}.yaml"
    if not file.is_file():
        return False
    values = OmegaConf.create(as_text(config_files.load(file)))  # nothing is resolved: the run may be foreign
    return OmegaConf.select(values, "logger.name") is not None
