"""A one-line message for any error that a command line can cause, Hydra's included."""

import difflib
import re

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel

from ijepa.config import TrainConfig
from ijepa.config.checks import dotted_keys, suggest_key
from ijepa.util import commands
from ijepa.util.errors import UserError
from ijepa.util.overrides import without_quotes


def explain(error: BaseException, overrides: list[str], schema: type[BaseModel] = TrainConfig) -> str:
    """A one-line message: what is wrong and what to try; for errors of unknown kinds, their type and first line.

    Args:
        error: what was raised.
        overrides: of the command line, to show the value of an unknown key.
        schema: of the command's configuration, for suggestions.
    """
    text = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    typed = [without_quotes(item) for item in overrides]
    given = {item.lstrip("+~").partition("=")[0]: item.partition("=")[2] for item in typed}
    if isinstance(error, UserError):
        return " ".join(text)
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        options = [name for name in error.options or [] if not name.startswith("_")]
        close = difflib.get_close_matches(option, options, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        if not group and not option:
            return "--config-path: not supported; try --config-dir, which adds a folder to conf/"
        if not group:
            return f"--config-name {option}: no such file in --config-dir or conf/; omit it, or name a run's config"
        hint = f"try {', '.join(options)}" if options else "see --help for the options"
        return f"{group}={option}: no such option; {meant}{hint}"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be parsed as key=value; quote values that contain = , {{ or [: 'key=\"value\"'"
        )
    if isinstance(error, HydraException | OmegaConfBaseException):
        key = re.search(r"[Cc]ould not override '([^']*)'", text[0])
        if key:
            return _unknown_key(key[1], given.get(key[1]), schema)
        if text[0].startswith("Ambiguous value"):
            key = re.search(r"'([^=]*)=(.*)'", text[0])
            assert key is not None
            one = commands.typed(f'{key[1]}="{key[2]}"')
            return f"{key[1]}={key[2]}: several values; add -m for a sweep, or quote one value: {one}"
        cause = error.__cause__
        detail = f" ({str(cause).splitlines()[0]})" if isinstance(cause, OmegaConfBaseException) else ""
        prefix = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        return prefix + text[0] + detail
    return f"{type(error).__name__}: {text[0]}"


def _unknown_key(key: str, value: str | None, schema: type[BaseModel]) -> str:
    known = [*dotted_keys(schema), "experiment"] if schema is TrainConfig else dotted_keys(schema)
    shown = key if value is None else f"{key}={value}"
    return f"{shown}: no such key; {suggest_key(key, known)}"
