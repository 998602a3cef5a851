"""Values that the option of data= suggests for other groups, such as a patch size or the length of the run."""

from collections.abc import Iterator
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from ijepa.util.errors import show


def notes(config: BaseModel) -> list[str]:
    """A line for each value that data= sets differently from the chosen option of the value's own group.

    Overrides of the user, an experiment and init=FILE take precedence over data=: for their values there is no line.
    """
    composing = HydraConfig.initialized() and GlobalHydra.instance().is_initialized()
    if not composing or HydraConfig.get().job.config_name not in ("train", "evaluate"):
        return []  # not started by a command
    choices, lines = HydraConfig.get().runtime.choices, []
    data = choices.get("data")
    typed = {item.lstrip("+~").partition("=")[0] for item in HydraConfig.get().overrides.task}
    values = config.model_dump()
    for key, value in _flat(_option("data", data), "") if data else ():
        group = key.partition(".")[0]
        if group == "data" or not choices.get(group) or key in typed:
            continue
        default = OmegaConf.select(_option(group, choices[group]), key)
        if default != value and OmegaConf.select(OmegaConf.create(values), key) == value:
            lines.append(f"{key}={show(value)}, suggested by data={data}; {group}={choices[group]} has {show(default)}")
    return lines


def _option(group: str, name: str) -> DictConfig:
    return compose(overrides=[f"+{group}={name}"])


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in node:
        key = f"{prefix}{name}"
        if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            continue
        if isinstance(node[name], DictConfig):
            yield from _flat(node[name], f"{key}.")
        else:
            yield key, node[name]
