"""Optional loggers besides metrics.csv, and the user's own callbacks."""

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
    """The loggers that ``logger`` names, besides metrics.csv.

    Args:
        config: the run's configuration.
        folder: of the run.
        metrics: specs of the metrics that will be logged, by column.
        step: after which the run resumes; 0: a new run.

    Raises:
        UserError: when W&B is online without a login, or the user's own logger cannot be built.
    """
    values, chosen = config.model_dump(), list[Logger]()
    if config.logger.wandb is not None:
        from ijepa.loggers.wandb_run import WandbRun  # takes a second to import

        chosen.append(WandbRun(config.logger.wandb, folder, values, metrics, step > 0))
    if config.logger.tensorboard is not None:
        from ijepa.loggers.tensorboard import TensorBoardRun

        chosen.append(TensorBoardRun(folder, OmegaConf.to_yaml(OmegaConf.create(values)), step))
    for name, section in config.logger.custom_classes.items():
        chosen.append(instantiate(f"logger.{name}", section, Logger, folder=folder, config=values, step=step))
    return chosen


def callbacks(config: schema.TrainConfig, folder: Path, step: int) -> list[L.Callback]:
    """The user's own callbacks; raises UserError if one cannot be built, or two have the same state_key."""
    values, chosen, state_keys = config.model_dump(), list[L.Callback](), set[str]()
    for name, section in config.callback.custom_classes.items():
        key = f"callback.{name}"
        callback = instantiate(key, section, L.Callback, folder=folder, config=values, step=step)
        if type(callback).state_dict is not L.Callback.state_dict:
            if callback.state_key in state_keys:
                problem = "another callback has its state_key; give each class its own"
                raise ConfigError(f"{key}.{TARGET}", section.target, problem)
            state_keys.add(callback.state_key)
        chosen.append(callback)
    return chosen
