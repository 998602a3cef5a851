"""Configurations from Python: Hydra composes them as for a command, with its one-line errors."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from ijepa.cli.explain import explain
from ijepa.config.trust import trusting
from ijepa.util.errors import UserError
from ijepa.util.overrides import quoted
from ijepa.util.paths import CONF


@contextlib.contextmanager
def composed(name: str, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """The configuration of command ``name``; inside, `HydraConfig` is that of the command.

    Raises:
        UserError: when a key or a value is wrong.
    """
    hydra = HydraConfig.instance()
    before = hydra.cfg
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            values = compose(name, list(overrides), return_hydra_config=True)
            hydra.set_config(values)  # init=FILE needs to know the overrides
            with open_dict(values):
                del values["hydra"]
            with trusting(values.get("trust") or []):
                yield values
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, list(overrides))) from None
    finally:
        hydra.cfg = before


def override(key: str, value: Any) -> str:
    """``key=value`` in Hydra's grammar, for any plain value or path."""
    return f"{key}={_text(value)}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, Sequence | np.ndarray):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, np.generic):
        return _text(value.item())
    if isinstance(value, int | float):
        return repr(value)
    raise UserError(f"{value!r}: a {type(value).__name__} is no value of a key; give text, numbers, lists or None")
