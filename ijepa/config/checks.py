"""Validates a composed configuration; an error is one line that names the faulty key, its value and what to try."""

import difflib
import math
from typing import Any, TypeVar, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from ijepa.config import Data, Model, MultiBlock, Reference, Section, Tasks, TrainConfig, Vit
from ijepa.config.custom import TARGET, Custom
from ijepa.config.fields import check_range, check_width
from ijepa.util import commands
from ijepa.util.errors import ConfigError, UserError, show
from ijepa.util.sizes import MAX_PATCHES, MAX_PIXELS, memory_problem

MIN_REGULARIZED = 16
"""Minimum number of images in a micro-batch that regularisers compare: fewer say too little about the covariance."""
MAX_OFFSET = 1e12
"""Largest mean of a channel, in standard deviations."""
ConfigT = TypeVar("ConfigT", bound=Section)


def parse(schema: type[ConfigT], composed: DictConfig | dict[str, Any]) -> ConfigT:
    """Validates a composed configuration and converts it to the type ``schema``.

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
        raise _to_user_error(schema, error) from None


def _reject_booleans(schema: type[BaseModel], values: dict[str, Any], prefix: str) -> None:
    """Raises ConfigError for true and false in other than bool fields, where Python would read true as 1."""
    for name, field in schema.model_fields.items():
        value = values.get(name)
        listed = any(value is choice for choice in get_args(field.annotation))
        if isinstance(value, bool) and field.annotation is not bool and not listed:
            raise ConfigError(f"{prefix}{name}", value, "is neither a number nor a name; see --help")
        nodes: dict[str, Any] = {}
        if isinstance(value, dict):
            nodes = value if is_named_sections(field.annotation) else {"": value}
        for inner, node in nodes.items():
            for section in possible_sections(field.annotation, node):
                _reject_booleans(section, node, f"{prefix}{name}.{inner}." if inner else f"{prefix}{name}.")


def check(config: TrainConfig) -> None:
    """Checks combinations of values that are valid by themselves.

    Raises:
        UserError: names the first key that does not match the others, its value and what to try.
    """
    model, data = config.model, config.data
    if config.init_channels is not None and config.init is None:
        raise ConfigError("init_channels", config.init_channels, "needs init=FILE; add that, or omit this")
    check_data(data)
    if config.decoder is None:  # else model and predictor are the checkpoint's
        check_model(model, data, stored=config.init is not None)
        if isinstance(model, Vit):  # the sizes of other encoders are known only once they are built
            check_sizes(config, model.depth, model.heads)
    if config.task.pictures is not None:
        command = f"{commands.command_line('evaluate')} checkpoint=RUN_DIR task=pictures"
        problem = f"training draws pictures anyway; for more try {command}"
        raise ConfigError("task", "pictures", problem)
    if not config.task.with_metrics():
        names = ",".join(config.task.chosen())
        problem = f"gives no metric that a run could report; add another task, e.g. [knn{names and ','}{names}]"
        raise ConfigError("task", names or "[]", problem)
    if isinstance(config.masking, MultiBlock | Reference):
        for name in ("target_scale", "target_aspect", "context_scale"):
            check_range(f"masking.{name}", getattr(config.masking, name), most=None if "aspect" in name else 1.0)
    micro_batches = config.hardware.devices * config.hardware.nodes * config.hardware.accumulation
    if data.batch_size % micro_batches:
        problem = (
            f"cannot be divided over {config.hardware.devices} devices x {config.hardware.nodes} nodes x "
            f"{config.hardware.accumulation} micro-batches; try {-(-data.batch_size // micro_batches) * micro_batches}"
        )
        raise ConfigError("data.batch_size", data.batch_size, problem)
    objective = config.objective
    if not any((objective.distance_weight, objective.variance_weight, objective.covariance_weight, *objective.terms)):
        raise ConfigError("objective.distance_weight", objective.distance_weight, "nothing is left to minimise; try 1")
    if config.teacher is not None:
        config.teacher.check(objective)
    if config.decoder is not None:
        config.decoder.check(config)
    elif config.checkpoint is not None:
        problem = "is for decoders; add experiment=decoder, or, to start from these weights, use init="
        raise ConfigError("checkpoint", config.checkpoint, problem)
    if objective.target_depths is not None and objective.target == "pixels":
        problem = "pixels have no depth; try null, or objective.target=output"
        raise ConfigError("objective.target_depths", objective.target_depths, problem)
    if objective.pixel_weight and objective.target != "output":
        problem = "pixels are predicted beside objective.target=output only; try 0"
        raise ConfigError("objective.pixel_weight", objective.pixel_weight, problem)
    if objective.standardize_targets and (objective.target != "output" or data.batch_size < 2):
        problem = "needs objective.target=output and a batch of at least 2; try false"
        raise ConfigError("objective.standardize_targets", objective.standardize_targets, problem)
    if objective.renormalize_targets and not objective.standardize_targets:
        problem = "acts on standardised targets; try objective.standardize_targets=true, or false"
        raise ConfigError("objective.renormalize_targets", objective.renormalize_targets, problem)
    regularizer_weight = config.objective.variance_weight + config.objective.covariance_weight
    compared = data.batch_size // config.hardware.accumulation  # images of a micro-batch, over all devices
    least = 2 if config.hardware.accumulation == 1 else MIN_REGULARIZED
    if regularizer_weight and compared < least:
        problem = (
            f"regularisers compare the images of a micro-batch with each other, at least {least}, not {compared}; "
            "try a smaller hardware.accumulation, or objective=l2, which has none"
        )
        raise ConfigError("objective.variance_weight", config.objective.variance_weight, problem)


def check_sizes(config: TrainConfig, depth: int, heads: int) -> None:
    """Checks predictor and tasks against the encoder's numbers of blocks and attention heads; raises ConfigError."""
    check_width("predictor.width", config.predictor.width, heads)
    check_task(config.task, depth)


def check_model(model: Model, data: Data, stored: bool = False) -> None:
    """Checks I-JEPA's ViT (no others); ``stored``: whether model.positions=stored is allowed. Raises ConfigError."""
    if not isinstance(model, Vit):
        return
    if model.positions == "stored" and not stored:
        raise ConfigError("model.positions", model.positions, "needs init=FILE with learnt positions; try index")
    check_patch_size(model.patch_size, data)
    check_width("model.width", model.width, model.heads)
    problem = memory_problem(model.width, model.depth, model.mlp_ratio)
    if problem is not None:
        raise ConfigError("model.width", model.width, f"{problem}; try a smaller model")
    if model.position_grid is not None and model.positions == "index":
        raise ConfigError(
            "model.position_grid", model.position_grid, "needs model.positions=scaled; omit it, or add that"
        )


def check_patch_size(patch_size: int, data: Data) -> None:
    """Raises ConfigError if ``patch_size`` does not divide the images' sides."""
    for side in data.image_size:
        if side % patch_size:
            divisors = [n for n in range(2, side) if not any(s % n for s in data.image_size)]
            nearest = min(divisors, key=lambda n: abs(n - patch_size), default=1)
            problem = f"does not divide data.image_size={show(data.image_size)}; try {nearest}"
            raise ConfigError("model.patch_size", patch_size, problem)
    patches = math.prod(side // patch_size for side in data.image_size)
    if patches > MAX_PATCHES:
        problem = f"are {patches} patches of model.patch_size={patch_size}, more than {MAX_PATCHES}; try smaller images"
        raise ConfigError("data.image_size", data.image_size, problem)


def check_data(data: Data) -> None:
    """Checks the data section; raises ConfigError."""
    if math.prod(data.image_size) * data.channels > MAX_PIXELS:
        problem = f"with data.channels={data.channels}, more than {MAX_PIXELS} values an image; try smaller ones"
        raise ConfigError("data.image_size", data.image_size, problem)
    for key, values in (("data.mean", data.mean), ("data.std", data.std)):
        if len(values) != data.channels:
            problem = f"needs {data.channels} values, one per channel (data.channels={data.channels}); "
            problem += f"compute them with {commands.command_line('statistics')}"
            raise ConfigError(key, values, problem)
    for mean, std in zip(data.mean, data.std, strict=True):
        if abs(mean) > MAX_OFFSET * std:
            problem = (
                f"more than {MAX_OFFSET:g} times data.std={show(data.std)} from 0, where images have no contrast; "
            )
            raise ConfigError(
                "data.mean", data.mean, f"{problem}compute both with {commands.command_line('statistics')}"
            )
    check_range("data.crop_scale", data.crop_scale, most=1.0)
    check_range("data.crop_aspect", data.crop_aspect, most=None)


def check_task(task: Tasks, depth: int) -> None:
    """Checks the tasks for an encoder of ``depth`` blocks; raises ConfigError."""
    for name, chosen in task.chosen().items():
        if not isinstance(chosen, Custom):
            chosen.check(f"task.{name}", depth)


def dotted_keys(schema: type[BaseModel]) -> list[str]:
    """All keys that a configuration of ``schema`` can have, in dotted form."""
    dotted = []
    for name, field in schema.model_fields.items():
        sections = [] if is_named_sections(field.annotation) else _section_types(field.annotation)
        alias = field.alias or name
        dotted += [alias, *(f"{alias}.{key}" for section in sections for key in dotted_keys(section))]
    return list(dict.fromkeys(dotted))


def suggest_key(key: str, known: list[str]) -> str:
    """What to try instead of the unknown ``key``, as the end of a message; ``known`` are all keys."""
    parent, _, name = key.rpartition(".")
    if key in known and not parent:
        return "not a config group of this command; set its keys one by one"
    if key in known and "." in parent:  # task.knn.k
        return f"{parent.replace('.', '=', 1)} has it"
    if key in known:
        return f"{parent} has {name} with another option or experiment, not with the chosen one"
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if similar:
        return f"did you mean {similar[0]}?"
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    return f"try {', '.join(siblings)}" if siblings else "see --help for the keys"


def possible_sections(annotation: Any, value: dict[str, Any]) -> list[type[BaseModel]]:
    """The possible schemas of node ``value``: `Custom` ones if it has a ``_target_``, else the others."""
    sections = _section_types(annotation)
    if TARGET in value:
        return [section for section in sections if issubclass(section, Custom)] or sections
    return [section for section in sections if not issubclass(section, Custom)]


def is_named_sections(annotation: Any) -> bool:
    """Whether a node contains sections whose names the user chooses."""
    return get_origin(annotation) is dict


def _named_sections(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """The keys for which `is_named_sections` holds, in dotted form."""
    dotted = []
    for name, field in schema.model_fields.items():
        if is_named_sections(field.annotation):
            dotted.append(f"{prefix}{name}")
        else:
            dotted += [
                key
                for section in _section_types(field.annotation)
                for key in _named_sections(section, f"{prefix}{name}.")
            ]
    return dotted


def _section_types(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _section_types(argument)]


def _to_user_error(schema: type[BaseModel], error: ValidationError) -> UserError:
    details = error.errors()[0]
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    known, user_named = dotted_keys(schema), tuple(f"{key}." for key in _named_sections(schema))
    names: list[str] = []
    for part in details["loc"]:  # omits the tags of unions and the indices of lists
        candidate = ".".join([*names, str(part)])
        is_user_named = names in (["logger"], ["callback"])  # names chosen by the user
        if isinstance(part, str) and (is_user_named or candidate in known or candidate.startswith(user_named)):
            names.append(part)
    key, value = ".".join(names), details["input"]
    if details["type"] == "extra_forbidden":
        last = str(details["loc"][-1])
        wrong = (
            key if names[-1:] == [last] else ".".join([*names, last])
        )  # in the first case another option has this key
        return ConfigError(wrong, value, f"no such key; {suggest_key(wrong, known)}")
    if details["type"] == "missing":
        last = str(details["loc"][-1])
        missing = key if names[-1:] == [last] else f"{key}.{last}".removeprefix(".")
        return UserError(f"{missing} is not set; add {missing}=VALUE")
    if details["type"] == "union_tag_invalid":
        return ConfigError(f"{key}.name", value.get("name"), f"should be one of {details['ctx']['expected_tags']}")
    if details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        inner = [name for name in known if name.startswith(f"{key}.")]
        if key not in known:
            return ConfigError(key, value, f"no such key; {suggest_key(key, known)}")
        return ConfigError(key, value, f"is a section, not a value; try its keys: {', '.join(inner)}")
    if details["type"] == "literal_error":
        expected = details["ctx"]["expected"].replace("False", "false").replace("True", "true")
        return ConfigError(key, value, f"should be {expected}")
    if details["type"] == "list_type":
        return ConfigError(key, value, "should be " + ("n or [h,w]" if key == "data.image_size" else "a list, [a,b]"))
    message = (
        details["msg"]
        .replace("Input should", "should")
        .replace("Value error, ", "")
        .replace("Value should", "should")
        .split(" after ")[0]
    )
    bound = next((details["ctx"][name] for name in ("ge", "gt", "le", "lt") if name in details.get("ctx", {})), None)
    if isinstance(bound, float):  # which pydantic writes with all its zeros
        message = f"{message.rpartition(' ')[0]} {bound:g}"
    return UserError(f"{key}: {message}") if isinstance(value, dict) else ConfigError(key, value, message)
