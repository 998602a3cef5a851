"""The values that init=FILE sets in a configuration, unless the user has set them."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from ijepa.run import warm_start
from ijepa.util.paths import CONF

EXPERIMENTS = CONF / "experiment"
CONTINUED = "continued"
"""The default experiment with init=FILE; ``experiment=[]``: none."""


def resolve_init(composed: DictConfig) -> DictConfig | dict[str, Any]:
    """The configuration with sizes and image settings of the weights that ``init`` names, and experiment `CONTINUED`.

    Without ``init``, the configuration is returned unchanged.

    Raises:
        UserError: when there are no such weights, or a value that the user has set contradicts them.
    """
    if composed.get("init") is None:
        return composed
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    heads = values["model"].get("heads") if given("model.heads") else None
    start = warm_start.read(str(composed.init), heads)
    if "experiment" not in _overrides() and is_default_config():
        values = _merge_unset(values, _load_experiment(CONTINUED), "")
    return warm_start.apply_checkpoint_sizes({str(key): value for key, value in values.items()}, start, given)


def given(key: str) -> bool:
    """Whether the user has set a key: directly, by an option of its group, or in their own configuration."""
    overrides = _overrides()
    if not is_default_config() or key in overrides or (_in_model_groups(key) and "model" in overrides):
        return True
    if key.partition(".")[0] == "predictor" and "predictor" in overrides:
        return True
    experiments = overrides.get("experiment", "").strip("[]")
    return any(_experiment_sets(name.strip(), key) for name in experiments.split(",") if name.strip())


def _overrides() -> dict[str, str]:
    return dict(item.lstrip("+~").partition("=")[::2] for item in HydraConfig.get().overrides.task)


def is_default_config() -> bool:
    """Whether the command uses conf/train.yaml, not another ``--config-name``."""
    return HydraConfig.get().job.config_name == "train"


def _in_model_groups(key: str) -> bool:
    return key.partition(".")[0] in ("model", "predictor")


def _load_experiment(name: str) -> DictConfig:
    experiment = OmegaConf.load(EXPERIMENTS / f"{name}.yaml")
    assert isinstance(experiment, DictConfig)
    return experiment


def _experiment_sets(name: str, key: str) -> bool:
    """Whether an experiment sets a key; the user's own experiments count as setting every key."""
    if not (EXPERIMENTS / f"{name}.yaml").is_file():
        return True
    experiment = _load_experiment(name)
    if OmegaConf.select(experiment, key) is not None:
        return True
    for entry in experiment.get("defaults", ListConfig([])):
        if isinstance(entry, DictConfig):
            if _in_model_groups(key) and any(str(group).endswith("/model") for group in entry):
                return True
        elif entry != "_self_" and _experiment_sets(str(entry), key):
            return True
    return False


def _merge_unset(values: dict[Any, Any], others: DictConfig, prefix: str) -> dict[Any, Any]:
    """``values``, with those of ``others`` for keys that the user has not set."""
    merged = dict(values)
    for name, value in others.items():
        key = prefix + str(name)
        if isinstance(value, DictConfig):
            merged[name] = _merge_unset(values[name], value, f"{key}.")
        elif not given(key):
            merged[name] = value
    return merged
