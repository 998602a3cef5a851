"""summary.json: totals and results of a run; a run with this file is finished."""

from pathlib import Path
from typing import Any

from ijepa.util.errors import UserError
from ijepa.util.files import write_json
from ijepa.util.reading import read_json


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes ``summary`` atomically; it must contain ``steps``, the number of steps trained."""
    write_json(path, summary)


def read_summary(path: Path) -> dict[str, Any] | None:
    """The summary; None if there is no such file: the run is not finished.

    Raises:
        UserError: when the file is corrupt.
    """
    if not path.exists():
        return None
    try:
        summary = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(summary, dict):
        raise UserError(f"{path}: not the summary of a run; restore the file that train.py wrote")
    return summary


def finished_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None if it is missing or corrupt: resuming the run writes it again."""
    try:
        summary = read_summary(path)
    except (OSError, UserError):
        return None
    return summary if summary is not None and "steps" in summary else None
