"""From a composed configuration to a typed one, or to a line that names the faulty key, its value and what would do."""

import difflib
import math
from pathlib import Path
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from ijepa.config import Attentive, Data, Model, MultiBlock, Reference, Section, Tasks, TrainConfig, Tuning
from ijepa.util.errors import ConfigError, UserError, show

ConfigT = TypeVar("ConfigT", bound=Section)


def parse(schema: type[ConfigT], composed: DictConfig | dict[str, Any]) -> ConfigT:
    """The typed configuration of a composed one.

    Raises:
        UserError: names the first faulty key, its value and what would do.
    """
    if isinstance(composed, DictConfig):
        try:
            composed = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
        except MissingMandatoryValue as error:
            raise UserError(f"{error.full_key} is not set; add {error.full_key}=VALUE") from None
        except OmegaConfBaseException as error:
            raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(composed, dict)
    _reject_booleans(schema, composed, "")
    try:
        return schema.model_validate(composed)
    except ValidationError as error:
        raise _explain(schema, error) from None


def saved(file: Path) -> DictConfig:
    """The configuration that a run has written.

    Raises:
        UserError: when ``file`` holds none any more.
    """
    try:
        values = OmegaConf.load(file)
    except Exception:  # whatever the YAML parser makes of it
        values = None  # type: ignore[assignment]
    if not isinstance(values, DictConfig) or not isinstance(values.get("data"), DictConfig) or "seed" not in values:
        raise UserError(f"{file}: not the configuration of a run; restore the file that train.py wrote")
    return values


def _reject_booleans(schema: type[BaseModel], values: dict[str, Any], prefix: str) -> None:
    """Where a number is wanted, which Python would read true as 1."""
    for name, field in schema.model_fields.items():
        value = values.get(name)
        if isinstance(value, bool) and field.annotation is not bool:
            raise ConfigError(f"{prefix}{name}", value, "is neither a number nor a name; see --help")
        if isinstance(value, dict):
            for section in _sections(field.annotation):
                _reject_booleans(section, value, f"{prefix}{name}.")


def check(config: TrainConfig) -> None:
    """Refuses values that are fine on their own and do not fit together.

    Raises:
        UserError: names the first key that does not fit, its value and what would do.
    """
    model, data = config.model, config.data
    if config.init_channels is not None and config.init is None:
        raise ConfigError("init_channels", config.init_channels, "needs init=FILE; add that, or omit this")
    check_model(model, data, stored=config.init is not None)
    _check_width("predictor.width", config.predictor.width, model.heads)
    check_data(data)
    check_task(config.task, model.depth)
    if config.task.pictures is not None:
        problem = "training draws pictures anyway; for more try python evaluate.py checkpoint=RUN_DIR task=pictures"
        raise ConfigError("task", "pictures", problem)
    if not config.task.measured():
        raise ConfigError(
            "task", "features", "gives no metric that a run could report; add another task, e.g. [knn,features]"
        )
    if isinstance(config.masking, MultiBlock | Reference):
        for name in ("target_scale", "target_aspect", "context_scale"):
            _check_range(f"masking.{name}", getattr(config.masking, name), most=None if "aspect" in name else 1.0)
    shares = config.hardware.devices * config.hardware.nodes * config.hardware.accumulation
    if data.batch_size % shares:
        problem = (
            f"cannot be divided over {config.hardware.devices} devices x {config.hardware.nodes} nodes x "
            f"{config.hardware.accumulation} micro-batches; try {-(-data.batch_size // shares) * shares}"
        )
        raise ConfigError("data.batch_size", data.batch_size, problem)
    weights = config.objective.variance_weight + config.objective.covariance_weight
    if weights and (config.hardware.accumulation > 1 or data.batch_size < 2):
        problem = (
            "regularisers need a batch of at least 2 and no gradient accumulation; try objective=l2, which has none"
        )
        raise ConfigError("objective.variance_weight", config.objective.variance_weight, problem)


def check_model(model: Model, data: Data, stored: bool = False) -> None:
    """The checks that concern the encoder and its images, and whether positions can be stored; raises ConfigError."""
    if model.positions == "stored" and not stored:
        raise ConfigError("model.positions", model.positions, "needs init=FILE with learnt positions; try index")
    for side in data.image_size:
        if side % model.patch_size:
            fits = [n for n in range(2, side) if not any(s % n for s in data.image_size)]
            better = min(fits, key=lambda n: abs(n - model.patch_size), default=1)
            problem = f"does not divide data.image_size={show(data.image_size)}; try {better}"
            raise ConfigError("model.patch_size", model.patch_size, problem)
    _check_width("model.width", model.width, model.heads)
    if model.position_grid is not None and model.positions == "index":
        raise ConfigError(
            "model.position_grid", model.position_grid, "needs model.positions=scaled; omit it, or add that"
        )


def check_data(data: Data) -> None:
    """The checks that concern the data alone; raises ConfigError."""
    for key, values in (("data.mean", data.mean), ("data.std", data.std)):
        if len(values) != data.channels:
            problem = f"needs {data.channels} values, one per channel (data.channels={data.channels}); "
            problem += "compute them with python -m ijepa.data.statistics"
            raise ConfigError(key, values, problem)
    _check_range("data.crop_scale", data.crop_scale, most=1.0)
    _check_range("data.crop_aspect", data.crop_aspect, most=None)


def check_task(task: Tasks, depth: int) -> None:
    """The checks that concern the tasks of an encoder of ``depth`` blocks; raises ConfigError."""
    if task.knn is not None and task.knn.headline not in task.knn.k:
        raise ConfigError(
            "task.knn.headline", task.knn.headline, f"not in task.knn.k={show(task.knn.k)}; use one of them"
        )
    for name in ("linear", "count", "distance", "depth", "segmentation"):
        probe = getattr(task, name)
        if probe is not None and max(probe.layers) > depth:
            problem = f"the encoder has {depth} blocks; try [1,{depth}]"
            raise ConfigError(f"task.{name}.layers", probe.layers, problem)
    if task.pictures is not None and not 1 <= abs(task.pictures.block) <= depth:
        problem = f"the encoder has {depth} blocks; try 1 to {depth}, or -1 for the last"
        raise ConfigError("task.pictures.block", task.pictures.block, problem)
    for name, chosen in task.chosen().items():
        scale = getattr(chosen, "crop_scale", None)
        if scale is not None:
            _check_range(f"task.{name}.crop_scale", scale, most=1.0)
        if isinstance(chosen, Tuning | Attentive) and chosen.warmup_epochs > chosen.epochs:
            raise ConfigError(
                f"task.{name}.warmup_epochs", chosen.warmup_epochs, f"more than epochs={chosen.epochs}; lower it"
            )


def _check_width(key: str, width: int, heads: int) -> None:
    step = math.lcm(4, heads)
    if width % step:
        better = max(round(width / step), 1) * step
        raise ConfigError(key, width, f"not a multiple of 4 and of model.heads={heads}; try {better}")


def _check_range(key: str, limits: list[float], most: float | None) -> None:
    low, high = limits
    if not 0 < low <= high or (most is not None and high > most):
        bound = "" if most is None else f" <= {show(most)}"
        raise ConfigError(key, limits, f"needs 0 < low <= high{bound}")


def keys(schema: type[BaseModel]) -> list[str]:
    """Every key that a configuration of ``schema`` may have, dotted."""
    found = []
    for name, field in schema.model_fields.items():
        sections = _sections(field.annotation)
        found += [name, *(f"{name}.{key}" for section in sections for key in keys(section))]
    return list(dict.fromkeys(found))


def suggestion(key: str, known: list[str]) -> str:
    """A likely meant key, as the end of a sentence."""
    parent, _, name = key.rpartition(".")
    if key in known and not parent:
        return "not a config group of this command; set its keys one by one"
    if key in known:
        return f"{parent} has {name} with another option, not with the chosen one"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if close:
        return f"did you mean {close[0]}?"
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    return f"try {', '.join(siblings)}" if siblings else "see --help for the keys"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _explain(schema: type[BaseModel], error: ValidationError) -> UserError:
    fault = error.errors()[0]
    known = keys(schema)
    names: list[str] = []
    for part in fault["loc"]:  # leaves out the tags of unions and the indices of lists
        if isinstance(part, str) and ".".join([*names, part]) in known:
            names.append(part)
    key, value = ".".join(names), fault["input"]
    if fault["type"] == "extra_forbidden":
        wrong = ".".join([*names, str(fault["loc"][-1])])
        return ConfigError(wrong, value, f"no such key; {suggestion(wrong, known)}")
    if fault["type"] == "missing":
        last = str(fault["loc"][-1])
        missing = key if names[-1:] == [last] else f"{key}.{last}".removeprefix(".")
        return UserError(f"{missing} is not set; add {missing}=VALUE")
    if fault["type"] == "union_tag_invalid":
        return ConfigError(f"{key}.name", value.get("name"), f"should be one of {fault['ctx']['expected_tags']}")
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        inner = [name for name in known if name.startswith(f"{key}.")]
        return ConfigError(key, value, f"is a section, not a value; try its keys: {', '.join(inner)}")
    if fault["type"] == "list_type":
        return ConfigError(key, value, "should be " + ("n or [h,w]" if key == "data.image_size" else "a list, [a,b]"))
    message = (
        fault["msg"]
        .replace("Input should", "should")
        .replace("Value error, ", "")
        .replace("Value should", "should")
        .split(" after ")[0]
    )
    return UserError(f"{key}: {message}") if isinstance(value, dict) else ConfigError(key, value, message)
