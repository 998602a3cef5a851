"""health.json: the verdicts of a run's health checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ijepa.util.errors import UserError
from ijepa.util.files import write_json
from ijepa.util.reading import read_json


@dataclass(frozen=True)
class StoredVerdict:
    """The verdict of the health check after ``step``, with evidence and remedies, a line each."""

    step: int
    verdict: str
    kind: str | None
    evidence: list[str]
    remedies: list[str]


def write_verdicts(path: Path, verdicts: list[dict[str, Any]], seconds: float) -> None:
    """Writes verdicts (dicts with the fields of `StoredVerdict`) and the seconds that they took, atomically."""
    write_json(path, {"verdicts": verdicts, "seconds": seconds})


def read_verdicts(path: Path) -> list[StoredVerdict]:
    """The verdicts; an empty list if there is no such file.

    Raises:
        UserError: when the file is corrupt.
    """
    try:
        return [_verdict(item) for item in read_json(path)["verdicts"]]
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError):
        raise UserError(f"{path}: not the health of a run") from None


def _verdict(item: dict[str, Any]) -> StoredVerdict:
    evidence, remedies = ([str(line) for line in item.get(key) or []] for key in ("evidence", "remedies"))
    kind = item.get("kind")
    return StoredVerdict(
        int(item["step"]), str(item["verdict"]), None if kind is None else str(kind), evidence, remedies
    )
