"""Values of text keys are taken as they were typed: paths and names need no quotes of Hydra's grammar.

``run_dir=2026_11_28`` is no number, and ``data.root=~/photos (1)`` and ``data.root=a,b`` are paths. So are the elements
of lists of texts, between the commas of ``labels=[2024_01,1.10]``. What is quoted, or refers to another key
(``${...}``), is left to Hydra; so are lists for sweeps (``-m``), whose values commas separate.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from ijepa.config.checks import possible_sections
from ijepa.util.overrides import quoted

OVERRIDE = re.compile(r"(\+{0,2})([\w.]+)=(.*)", re.DOTALL)
IN_QUOTES = r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
QUOTED = re.compile(rf"""{IN_QUOTES}|.*\$\{{.*|(?i:null)|\?\?\?|""", re.DOTALL)
AS_TYPED = re.compile(rf"{IN_QUOTES}|(?!(?i:null|true|false|inf|nan)$)[A-Za-z_][A-Za-z0-9_./-]*|", re.DOTALL)
"""Elements of lists that Hydra reads as typed."""
ELEMENT = rf"(?:\s*{IN_QUOTES}\s*(?=[,\]])|(?:[^,\]]|\](?!\s*(?:,|$)))*)"
LIST = re.compile(rf"\[({ELEMENT}(?:,{ELEMENT})*)\]", re.DOTALL)
"""A list, whose elements contain a comma, or a bracket before one, only in quotes."""
SWEEP = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|int|float|bool|str|json_str)\(.*\)", re.DOTALL)
NUMBER = re.compile(r"[\d.][\w.]*")


def quote_texts(
    arguments: Sequence[str], schema: type[BaseModel], groups: Collection[str], multirun: bool
) -> list[str]:
    """The command line with the values of text keys in quotes.

    Args:
        arguments: overrides and flags; flags are not changed.
        schema: of the configuration.
        groups: keys that choose options, of which only those like numbers need quotes.
        multirun: commas separate the values of a sweep.
    """
    return [_quote_value(argument, schema, groups, multirun) for argument in arguments]


def _quote_value(argument: str, schema: type[BaseModel], groups: Collection[str], multirun: bool) -> str:
    match = OVERRIDE.fullmatch(argument)
    if match is None:
        return argument
    plus, key, value = match.groups()
    if key in groups:
        parts = [quoted(part) if NUMBER.fullmatch(part) else part for part in value.split(",")]
        return f"{plus}{key}={','.join(parts)}"
    path = key.split(".")
    several = is_text(schema, path, several=True)
    if not (several or is_text(schema, path)) or "${" in value:
        return argument
    if multirun and (SWEEP.fullmatch(value) or "\\," in value):
        return argument
    if several and not multirun and "," in value and not LIST.fullmatch(value.strip()):
        return argument  # for Hydra's message on several values
    parts = list(_split(value, several)) if multirun else [value.strip()]
    return f"{plus}{key}={','.join(_quote_part(part, several) for part in parts)}"


def _quote_part(part: str, several: bool) -> str:
    """One value, in quotes unless it is in some; ``several``: or a list of them."""
    found = LIST.fullmatch(part) if several else None
    if found is None:
        return part if QUOTED.fullmatch(part) else quoted(part)
    elements = [each if AS_TYPED.fullmatch(each) else quoted(each) for each in _split(found[1], False)]
    return f"[{','.join(elements)}]"


def _split(value: str, lists: bool) -> Iterator[str]:
    """The values between commas that are not in quotes; with ``lists``, nor in brackets."""
    whole = rf"\s*(?:{IN_QUOTES}{f'|{LIST.pattern}' if lists else ''})\s*(?=,|$)"
    at = 0
    while at <= len(value):
        part = re.compile(rf"{whole}|[^,]*", re.DOTALL).match(value, at)
        assert part is not None
        yield part[0].strip()
        at = part.end() + 1


def is_text(schema: type[BaseModel], parts: Sequence[str], several: bool = False) -> bool:
    """Whether a key, in parts, takes any text, or a list of ``several``; not if it is a name from a list, or no key."""
    first, *others = parts
    field = schema.model_fields.get(first) or next(
        (field for field in schema.model_fields.values() if field.alias == first), None
    )
    if field is None:
        return False
    if not others:
        return _is_string(field.annotation, several)
    annotation = field.annotation
    if get_origin(annotation) is dict:  # sections whose names the user chooses
        annotation, others = get_args(annotation)[1], others[1:]
    sections = possible_sections(annotation, {})
    answers = {is_text(section, others, several) for section in sections if others and _has(section, others[0])}
    return answers == {True}


def _has(section: type[BaseModel], name: str) -> bool:
    return name in section.model_fields or any(field.alias == name for field in section.model_fields.values())


def _is_string(annotation: Any, several: bool) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_string(get_args(annotation)[0], several)
    if get_origin(annotation) in (Union, UnionType):
        return all(_is_string(each, several) for each in get_args(annotation) if each is not type(None))
    if several:
        return get_origin(annotation) is list and _is_string(get_args(annotation)[0], False)
    return annotation is str
