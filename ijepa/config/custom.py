"""Classes of the user's own: named by ``_target_`` in a configuration, checked like the project's own options."""

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
        """What the class is called in messages."""
        return self.target

    @property
    def options(self) -> dict[str, Any]:
        """The other keys."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _under_its_key(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {TARGET: values.pop("target", self.target), **values}


class Named(Section):
    """Several of one kind, each below its name: the project's own, which a subclass lists, and classes of the user's.

    A file of options that chooses no name, as it begins with ``_target_``, is called as the class.
    """

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Custom] = Field(init=False)

    @classmethod
    def by_name(cls, values: Any) -> Any:
        """A node with each of its options below a name."""
        if not isinstance(values, dict) or TARGET not in values:
            return values
        named = {
            name: value
            for name, value in values.items()
            if name in cls.model_fields or (isinstance(value, dict) and TARGET in value)
        }
        own = {name: value for name, value in values.items() if name not in named}
        return {**named, str(own[TARGET]).rpartition(".")[2]: own}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        return cls.by_name(values)

    @property
    def own(self) -> dict[str, Custom]:
        """The user's classes, by name."""
        return dict(self.__pydantic_extra__ or {})

    @model_serializer(mode="wrap")
    def _chosen(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


def _tag(value: Any) -> Any:
    if isinstance(value, Custom) or (isinstance(value, dict) and TARGET in value):
        return TARGET
    return value.get("name") if isinstance(value, dict) else getattr(value, "name", None)


BY_NAME = Discriminator(_tag)
"""Chooses among sections by their ``name``, or `Custom` where there is a ``_target_``; each bears a `pydantic.Tag`."""


def load_class(key: str, target: str) -> Any:
    """The class, or function, that ``target`` names.

    Args:
        key: of the configuration, for messages.
        target: ``package.module.Class``.

    Raises:
        ConfigError: when it cannot be imported.
    """
    module, _, name = target.rpartition(".")
    if not module:
        raise ConfigError(key, target, "names no class; try package.module.Class")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(key, target, f"cannot be imported: {first_line(error)}") from error
    if not callable(found):
        raise ConfigError(key, target, "is not a class")
    return found


def instantiate(key: str, section: Custom, expected: Any, **given: Any) -> Any:
    """An object of the user's class.

    Args:
        key: of the section, ``masking`` for example; messages name the keys below it.
        section: which class, and its options.
        expected: a class or a runtime-checkable protocol that the object has to fulfil.
        given: what this software offers; passed where the constructor has a parameter of that name.

    Raises:
        ConfigError: when the class cannot be imported, its options are unknown, missing or of the wrong type, its
            constructor fails, or it makes something else than ``expected``.
        UserError: as the constructor raises it.
    """
    where = f"{key}.{TARGET}"
    made = load_class(where, section.target)
    options = validated(key, section, made, given)
    try:
        found = made(**options)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(where, section.target, f"fails: {first_line(error)}") from error
    if not isinstance(found, expected):
        missing = [name for name in _members(expected) if not hasattr(found, name)]
        lacks = f"lacks {', '.join(missing)}; see docs/extending.md" if missing else f"makes no {expected.__name__}"
        raise ConfigError(where, section.target, lacks)
    return found


def validated(key: str, section: Custom, made: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments: options checked against its signature and annotations, and what it takes of given.

    Raises:
        ConfigError: names the key that is unknown, missing or of the wrong type.
    """
    try:
        parameters = inspect.signature(made).parameters
    except (TypeError, ValueError):  # of a class written in C
        return {**section.options, **given}
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = [name for name, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    own = [name for name in names if name not in given]
    for name, value in section.options.items():
        if name not in own and not anything:
            takes = f"{section.target} takes {', '.join(own)}" if own else f"{section.target} takes no options"
            raise ConfigError(f"{key}.{name}", value, f"no such key; {takes}")
    for name in own:
        if parameters[name].default is inspect.Parameter.empty and name not in section.options:
            raise UserError(f"{key}.{name} is not set; {section.target} needs it")
    passed = {name: value for name, value in given.items() if name in names or anything}
    return {**_typed(key, made, section.options), **passed}


def _typed(key: str, made: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options as the constructor's annotations want them, where these can be evaluated."""
    try:
        hints = inspect.signature(made, eval_str=True).parameters
    except Exception:  # an annotation that only a type checker can evaluate
        return options
    fields: dict[str, Any] = {}
    for name in options:
        annotation = hints[name].annotation if name in hints else inspect.Parameter.empty
        fields[name] = (Any if annotation is inspect.Parameter.empty else annotation, ...)
    try:
        model = pydantic_model("Options", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
        checked = model.model_validate(options)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise ConfigError(f"{key}.{name}", options[name], fault["msg"].replace("Input should", "should")) from None
    except Exception:  # an annotation that pydantic has no validator for
        return options
    return {name: getattr(checked, name) for name in options}


def _members(expected: Any) -> list[str]:
    """What a protocol asks for."""
    own = [kind for kind in expected.__mro__ if kind.__name__ not in ("Protocol", "Generic", "object")]
    names = {name for kind in own for name in (*vars(kind), *getattr(kind, "__annotations__", {}))}
    return sorted(name for name in names if not name.startswith("_"))


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
