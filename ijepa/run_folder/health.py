"""health.json: the verdicts on a run's health along it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ijepa.util.errors import UserError
from ijepa.util.files import write_json


@dataclass(frozen=True)
class StoredVerdict:
    """What a health check found after a step."""

    step: int
    verdict: str
    kind: str | None
    evidence: list[str]
    remedies: list[str]


def write_verdicts(path: Path, verdicts: list[dict[str, Any]], seconds: float) -> None:
    """Writes verdicts with the fields of `StoredVerdict`, and how long the health checks took, atomically."""
    write_json(path, {"verdicts": verdicts, "seconds": seconds})


def read_verdicts(path: Path) -> list[StoredVerdict]:
    """The verdicts, none where the run's health was not measured.

    Raises:
        UserError: when they are broken.
    """
    try:
        return [_verdict(item) for item in json.loads(path.read_bytes())["verdicts"]]
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        raise UserError(f"{path}: not the health of a run") from None


def _verdict(item: dict[str, Any]) -> StoredVerdict:
    evidence, remedies = ([str(line) for line in item.get(key) or []] for key in ("evidence", "remedies"))
    kind = item.get("kind")
    return StoredVerdict(
        int(item["step"]), str(item["verdict"]), None if kind is None else str(kind), evidence, remedies
    )
