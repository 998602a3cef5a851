"""What watches a run at the user's wish: loggers beside metrics.csv, and callbacks of the user's own."""

from collections.abc import Mapping
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from ijepa import config as schema
from ijepa.config.custom import TARGET, instantiate
from ijepa.util.errors import ConfigError
from ijepa.util.metric_spec import MetricSpec


def loggers(config: schema.TrainConfig, folder: Path, metrics: Mapping[str, MetricSpec], step: int) -> list[Logger]:
    """What ``logger`` adds to metrics.csv.

    Args:
        config: everything.
        folder: of the run.
        metrics: what will be logged, by column.
        step: after which the run resumes; 0 for a new one.

    Raises:
        UserError: when W&B is to be used online and nobody is logged in, or a logger of the user's own fails.
    """
    values, chosen = config.model_dump(), list[Logger]()
    if config.logger.wandb is not None:
        from ijepa.loggers.wandb_run import WandbRun  # takes a second to import

        chosen.append(WandbRun(config.logger.wandb, folder, values, metrics, step > 0))
    if config.logger.tensorboard is not None:
        from ijepa.loggers.tensorboard import TensorBoardRun

        chosen.append(TensorBoardRun(folder, OmegaConf.to_yaml(OmegaConf.create(values)), step))
    for name, section in config.logger.own.items():
        chosen.append(instantiate(f"logger.{name}", section, Logger, folder=folder, config=values, step=step))
    return chosen


def callbacks(config: schema.TrainConfig, folder: Path, step: int) -> list[L.Callback]:
    """The user's own callbacks; raises UserError where one cannot be made, or two would share their stored state."""
    values, made, stored = config.model_dump(), list[L.Callback](), set[str]()
    for name, section in config.callback.own.items():
        key = f"callback.{name}"
        found = instantiate(key, section, L.Callback, folder=folder, config=values, step=step)
        if type(found).state_dict is not L.Callback.state_dict:
            if found.state_key in stored:
                problem = "another callback has its state_key; give the class one that tells them apart"
                raise ConfigError(f"{key}.{TARGET}", section.target, problem)
            stored.add(found.state_key)
        made.append(found)
    return made
