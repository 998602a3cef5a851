"""summary.json: what a run came to; a run that has it is finished."""

import json
from pathlib import Path
from typing import Any

from ijepa.util.errors import UserError
from ijepa.util.files import write_json


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes ``summary``, atomically; it needs ``steps``, after which the run ended."""
    write_json(path, summary)


def read_summary(path: Path) -> dict[str, Any] | None:
    """The summary, None before the run's end.

    Raises:
        UserError: when it is broken.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not the summary of a run; restore the file that train.py wrote")
    return found


def finished_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None where there is none, or none any more: it will be written again."""
    try:
        found = read_summary(path)
    except (OSError, UserError):
        return None
    return found if found is not None and "steps" in found else None
