"""Users' classes: named by ``_target_`` in a configuration, their options checked like the project's own."""

import importlib
import inspect
from typing import Any

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic import create_model as pydantic_model

from ijepa.config.fields import Section, Text
from ijepa.util.errors import ConfigError, UserError

TARGET = "_target_"


class Custom(Section):
    """A class of your own: ``_target_: package.module.Class``; the other keys are its constructor's arguments."""

    model_config = ConfigDict(extra="allow")

    target: Text = Field(alias=TARGET)
    """a class that can be imported; the current folder is on the path"""

    @property
    def name(self) -> str:
        """The class's name in messages."""
        return self.target

    @property
    def options(self) -> dict[str, Any]:
        """All keys but ``_target_``."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _under_its_key(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {TARGET: values.pop("target", self.target), **values}


class NamedSections(Section):
    """Sections of one kind, by name: the fields of a subclass, and users' classes.

    A user's section without a name (``_target_`` at the top level) gets the name of its class.
    """

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Custom] = Field(init=False)

    @classmethod
    def by_name(cls, values: Any) -> Any:
        """The node with every section under a name."""
        if not isinstance(values, dict) or TARGET not in values:
            return values
        sections = {
            name: value
            for name, value in values.items()
            if name in cls.model_fields or (isinstance(value, dict) and TARGET in value)
        }
        options = {name: value for name, value in values.items() if name not in sections}
        return {**sections, str(options[TARGET]).rpartition(".")[2]: options}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        return cls.by_name(values)

    @property
    def custom_classes(self) -> dict[str, Custom]:
        """The sections of users' classes, by name."""
        return dict(self.__pydantic_extra__ or {})

    @model_serializer(mode="wrap")
    def _chosen(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


def _tag(value: Any) -> Any:
    if isinstance(value, Custom) or (isinstance(value, dict) and TARGET in value):
        return TARGET
    return value.get("name") if isinstance(value, dict) else getattr(value, "name", None)


NAME_DISCRIMINATOR = Discriminator(_tag)
"""Chooses a section by its ``name``, or `Custom` if it has a ``_target_``; the alternatives have a `pydantic.Tag`."""


def load_class(key: str, target: str) -> Any:
    """Imports the class or function ``target``.

    Args:
        key: configuration key, for messages.
        target: ``package.module.Class``.

    Raises:
        ConfigError: if it cannot be imported or is not callable.
    """
    module, _, name = target.rpartition(".")
    if not module:
        raise ConfigError(key, target, "names no class; try package.module.Class")
    try:
        loaded = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(key, target, f"cannot be imported: {first_line(error)}") from error
    if not callable(loaded):
        raise ConfigError(key, target, "is not a class")
    return loaded


def instantiate(key: str, section: Custom, expected: Any, **offered: Any) -> Any:
    """An instance of the user's class.

    Args:
        key: the section's key, such as ``masking``; messages name the keys below it.
        section: the class and its options.
        expected: a class or runtime-checkable protocol that the instance must satisfy.
        offered: further arguments; each is passed if the constructor has a parameter of this name.

    Raises:
        ConfigError: if the class cannot be imported, options are unknown, missing or of the wrong type, the
            constructor fails, or the instance does not satisfy ``expected``.
        UserError: if the constructor raises it.
    """
    target_key = f"{key}.{TARGET}"
    factory = load_class(target_key, section.target)
    options = validate_options(key, section, factory, offered)
    try:
        instance = factory(**options)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(target_key, section.target, f"fails: {first_line(error)}") from error
    if not isinstance(instance, expected):
        missing = [name for name in _protocol_members(expected) if not hasattr(instance, name)]
        problem = f"lacks {', '.join(missing)}; see docs/extending.md" if missing else f"is not a {expected.__name__}"
        raise ConfigError(target_key, section.target, problem)
    return instance


def validate_options(key: str, section: Custom, factory: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments: the options, checked against its signature, and those of ``offered`` that it takes.

    Raises:
        ConfigError: names the key that is unknown, missing or of the wrong type.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a class written in C
        return {**section.options, **offered}
    accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = [name for name, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    option_names = [name for name in names if name not in offered]
    for name, value in section.options.items():
        if name not in option_names and not accepts_any:
            accepted = (
                f"{section.target} takes {', '.join(option_names)}"
                if option_names
                else f"{section.target} takes no options"
            )
            raise ConfigError(f"{key}.{name}", value, f"no such key; {accepted}")
    for name in option_names:
        if parameters[name].default is inspect.Parameter.empty and name not in section.options:
            raise UserError(f"{key}.{name} is not set; {section.target} needs it")
    passed = {name: value for name, value in offered.items() if name in names or accepts_any}
    return {**_convert_types(key, factory, section.options), **passed}


def _convert_types(key: str, factory: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Converts options to the types that the constructor's annotations name, if these can be evaluated."""
    try:
        hints = inspect.signature(factory, eval_str=True).parameters
    except Exception:  # an annotation that only a type checker can evaluate
        return options
    fields: dict[str, Any] = {}
    for name in options:
        annotation = hints[name].annotation if name in hints else inspect.Parameter.empty
        fields[name] = (Any if annotation is inspect.Parameter.empty else annotation, ...)
    try:
        model = pydantic_model("Options", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
        converted = model.model_validate(options)
    except ValidationError as error:
        details = error.errors()[0]
        name = str(details["loc"][0])
        raise ConfigError(f"{key}.{name}", options[name], details["msg"].replace("Input should", "should")) from None
    except Exception:  # an annotation that pydantic has no validator for
        return options
    return {name: getattr(converted, name) for name in options}


def _protocol_members(expected: Any) -> list[str]:
    """The public members of a protocol or class."""
    classes = [kind for kind in expected.__mro__ if kind.__name__ not in ("Protocol", "Generic", "object")]
    names = {name for kind in classes for name in (*vars(kind), *getattr(kind, "__annotations__", {}))}
    return sorted(name for name in names if not name.startswith("_"))


def first_line(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
