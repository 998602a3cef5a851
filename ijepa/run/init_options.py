"""Applies what init=FILE determines to a configuration, unless the command line sets it."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from ijepa.run import warm_start
from ijepa.util.paths import CONF

EXPERIMENTS = CONF / "experiment"
CONTINUED = "continued"
"""The default experiment with init=FILE (``experiment=[]``: none)."""


def resolve_init(composed: DictConfig) -> DictConfig | dict[str, Any]:
    """With what the weights decide that ``init`` names, and the settings for weights that are good already.

    Raises:
        UserError: when there are no such weights, or something was said that contradicts them.
    """
    if composed.get("init") is None:
        return composed
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    heads = values["model"].get("heads") if given("model.heads") else None
    start = warm_start.read(str(composed.init), heads)
    if "experiment" not in _overrides() and _own():
        values = _merged(values, _experiment(CONTINUED), "")
    return warm_start.apply_checkpoint_sizes({str(key): value for key, value in values.items()}, start, given)


def given(key: str) -> bool:
    """Whether the user has set a key: directly, by an option of its group, or in a configuration of their own."""
    overrides = _overrides()
    if not _own() or key in overrides or (_of_model(key) and "model" in overrides):
        return True
    if key.partition(".")[0] == "predictor" and "predictor" in overrides:
        return True
    chosen = overrides.get("experiment", "").strip("[]")
    return any(_sets(name.strip(), key) for name in chosen.split(",") if name.strip())


def _overrides() -> dict[str, str]:
    return dict(item.lstrip("+~").partition("=")[::2] for item in HydraConfig.get().overrides.task)


def _own() -> bool:
    """Whether the configuration is this software's, as overrides change it."""
    return HydraConfig.get().job.config_name == "train"


def _of_model(key: str) -> bool:
    return key.partition(".")[0] in ("model", "predictor")


def _experiment(name: str) -> DictConfig:
    found = OmegaConf.load(EXPERIMENTS / f"{name}.yaml")
    assert isinstance(found, DictConfig)
    return found


def _sets(name: str, key: str) -> bool:
    """Whether an experiment sets a key; one of the user's own may set any."""
    if not (EXPERIMENTS / f"{name}.yaml").is_file():
        return True
    experiment = _experiment(name)
    if OmegaConf.select(experiment, key) is not None:
        return True
    for entry in experiment.get("defaults", ListConfig([])):
        if isinstance(entry, DictConfig):
            if _of_model(key) and any(str(group).endswith("/model") for group in entry):
                return True
        elif entry != "_self_" and _sets(str(entry), key):
            return True
    return False


def _merged(values: dict[Any, Any], others: DictConfig, prefix: str) -> dict[Any, Any]:
    """``values`` with those of ``others`` that were not given."""
    merged = dict(values)
    for name, value in others.items():
        key = prefix + str(name)
        if isinstance(value, DictConfig):
            merged[name] = _merged(values[name], value, f"{key}.")
        elif not given(key):
            merged[name] = value
    return merged
