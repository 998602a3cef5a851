"""Imports what needs diffusers, which is an extra, when a decoder is trained or evaluated."""

import importlib
from typing import Any

from ijepa.util.errors import UserError


def load(module: str) -> Any:
    """The module of this name.

    Raises:
        UserError: when diffusers is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "diffusers":
            raise
        raise UserError("decoders need diffusers; try pip install 'ijepa[decoder]'") from None
