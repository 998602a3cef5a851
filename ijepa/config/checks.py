"""From a composed configuration to a typed one, or to a line that names the faulty key, its value and what to try."""

import difflib
import math
from typing import Any, TypeVar, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from ijepa.config import Data, Model, MultiBlock, Reference, Section, Tasks, TrainConfig, Vit
from ijepa.config.custom import TARGET, Custom
from ijepa.config.fields import check_range
from ijepa.util import commands
from ijepa.util.errors import ConfigError, UserError, show

ConfigT = TypeVar("ConfigT", bound=Section)


def parse(schema: type[ConfigT], composed: DictConfig | dict[str, Any]) -> ConfigT:
    """The typed configuration of a composed one.

    Raises:
        UserError: names the first faulty key, its value and what to try.
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


def _reject_booleans(schema: type[BaseModel], values: dict[str, Any], prefix: str) -> None:
    """Where a number is wanted, which Python would read true as 1."""
    for name, field in schema.model_fields.items():
        value = values.get(name)
        if isinstance(value, bool) and field.annotation is not bool:
            raise ConfigError(f"{prefix}{name}", value, "is neither a number nor a name; see --help")
        nodes: dict[str, Any] = {}
        if isinstance(value, dict):
            nodes = value if is_named_sections(field.annotation) else {"": value}
        for inner, node in nodes.items():
            for section in sections_for(field.annotation, node):
                _reject_booleans(section, node, f"{prefix}{name}.{inner}." if inner else f"{prefix}{name}.")


def check(config: TrainConfig) -> None:
    """Refuses values that are fine on their own and do not fit together.

    Raises:
        UserError: names the first key that does not fit, its value and what to try.
    """
    model, data = config.model, config.data
    if config.init_channels is not None and config.init is None:
        raise ConfigError("init_channels", config.init_channels, "needs init=FILE; add that, or omit this")
    check_model(model, data, stored=config.init is not None)
    check_data(data)
    if isinstance(model, Vit):  # of the others, the encoder itself must be asked
        check_sizes(config, model.depth, model.heads)
    if config.task.pictures is not None:
        afterwards = f"{commands.typed('evaluate')} checkpoint=RUN_DIR task=pictures"
        problem = f"training draws pictures anyway; for more try {afterwards}"
        raise ConfigError("task", "pictures", problem)
    if not config.task.measured():
        raise ConfigError(
            "task", "features", "gives no metric that a run could report; add another task, e.g. [knn,features]"
        )
    if isinstance(config.masking, MultiBlock | Reference):
        for name in ("target_scale", "target_aspect", "context_scale"):
            check_range(f"masking.{name}", getattr(config.masking, name), most=None if "aspect" in name else 1.0)
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


def check_sizes(config: TrainConfig, depth: int, heads: int) -> None:
    """The checks that concern an encoder of ``depth`` blocks and ``heads`` attention heads; raises ConfigError."""
    _check_width("predictor.width", config.predictor.width, heads)
    check_task(config.task, depth)


def check_model(model: Model, data: Data, stored: bool = False) -> None:
    """The checks that concern I-JEPA's ViT, its images, and whether positions can be stored; raises ConfigError."""
    if not isinstance(model, Vit):
        return
    if model.positions == "stored" and not stored:
        raise ConfigError("model.positions", model.positions, "needs init=FILE with learnt positions; try index")
    check_patch_size(model.patch_size, data)
    _check_width("model.width", model.width, model.heads)
    if model.position_grid is not None and model.positions == "index":
        raise ConfigError(
            "model.position_grid", model.position_grid, "needs model.positions=scaled; omit it, or add that"
        )


def check_patch_size(patch_size: int, data: Data) -> None:
    """Refuses patches that do not divide the images; raises ConfigError."""
    for side in data.image_size:
        if side % patch_size:
            fits = [n for n in range(2, side) if not any(s % n for s in data.image_size)]
            better = min(fits, key=lambda n: abs(n - patch_size), default=1)
            problem = f"does not divide data.image_size={show(data.image_size)}; try {better}"
            raise ConfigError("model.patch_size", patch_size, problem)


def check_data(data: Data) -> None:
    """The checks that concern the data alone; raises ConfigError."""
    for key, values in (("data.mean", data.mean), ("data.std", data.std)):
        if len(values) != data.channels:
            problem = f"needs {data.channels} values, one per channel (data.channels={data.channels}); "
            problem += f"compute them with {commands.typed('statistics')}"
            raise ConfigError(key, values, problem)
    check_range("data.crop_scale", data.crop_scale, most=1.0)
    check_range("data.crop_aspect", data.crop_aspect, most=None)


def check_task(task: Tasks, depth: int) -> None:
    """The checks that concern the tasks of an encoder of ``depth`` blocks; raises ConfigError."""
    for name, chosen in task.chosen().items():
        if not isinstance(chosen, Custom):
            chosen.check(f"task.{name}", depth)


def _check_width(key: str, width: int, heads: int) -> None:
    step = math.lcm(4, heads)
    if width % step:
        better = max(round(width / step), 1) * step
        raise ConfigError(key, width, f"not a multiple of 4 and of model.heads={heads}; try {better}")


def keys(schema: type[BaseModel]) -> list[str]:
    """Every key that a configuration of ``schema`` may have, dotted."""
    found = []
    for name, field in schema.model_fields.items():
        sections = [] if is_named_sections(field.annotation) else _sections(field.annotation)
        shown = field.alias or name
        found += [shown, *(f"{shown}.{key}" for section in sections for key in keys(section))]
    return list(dict.fromkeys(found))


def suggestion(key: str, known: list[str]) -> str:
    """A likely meant key, as the end of a sentence."""
    parent, _, name = key.rpartition(".")
    if key in known and not parent:
        return "not a config group of this command; set its keys one by one"
    if key in known and "." in parent:  # task.knn.k
        return f"{parent.replace('.', '=', 1)} has it"
    if key in known:
        return f"{parent} has {name} with another option, not with the chosen one"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if close:
        return f"did you mean {close[0]}?"
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    return f"try {', '.join(siblings)}" if siblings else "see --help for the keys"


def sections_for(annotation: Any, value: dict[str, Any]) -> list[type[BaseModel]]:
    """The schemas that a node of this annotation may have: with a ``_target_`` that of the user's own classes."""
    found = _sections(annotation)
    if TARGET in value:
        return [section for section in found if issubclass(section, Custom)] or found
    return [section for section in found if not issubclass(section, Custom)]


def is_named_sections(annotation: Any) -> bool:
    """Whether a node holds sections under names that the user chooses."""
    return get_origin(annotation) is dict


def _named_sections(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """The keys of such nodes, dotted."""
    found = []
    for name, field in schema.model_fields.items():
        if is_named_sections(field.annotation):
            found.append(f"{prefix}{name}")
        else:
            found += [
                key for section in _sections(field.annotation) for key in _named_sections(section, f"{prefix}{name}.")
            ]
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _explain(schema: type[BaseModel], error: ValidationError) -> UserError:
    fault = error.errors()[0]
    raised = fault.get("ctx", {}).get("error")
    if isinstance(raised, UserError):
        return raised
    known, free = keys(schema), tuple(f"{key}." for key in _named_sections(schema))
    names: list[str] = []
    for part in fault["loc"]:  # leaves out the tags of unions and the indices of lists
        candidate = ".".join([*names, str(part)])
        own = names in (["logger"], ["callback"])  # the user's, by any name
        if isinstance(part, str) and (own or candidate in known or candidate.startswith(free)):
            names.append(part)
    key, value = ".".join(names), fault["input"]
    if fault["type"] == "extra_forbidden":
        last = str(fault["loc"][-1])
        wrong = key if names[-1:] == [last] else ".".join([*names, last])  # the first: another option has this key
        return ConfigError(wrong, value, f"no such key; {suggestion(wrong, known)}")
    if fault["type"] == "missing":
        last = str(fault["loc"][-1])
        missing = key if names[-1:] == [last] else f"{key}.{last}".removeprefix(".")
        return UserError(f"{missing} is not set; add {missing}=VALUE")
    if fault["type"] == "union_tag_invalid":
        return ConfigError(f"{key}.name", value.get("name"), f"should be one of {fault['ctx']['expected_tags']}")
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        inner = [name for name in known if name.startswith(f"{key}.")]
        if key not in known:
            return ConfigError(key, value, f"no such key; {suggestion(key, known)}")
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
