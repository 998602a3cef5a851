"""Configurations as flat keys, and what differs between them."""

from typing import Any

from ijepa.util.errors import show

PLACES = ("defaults", "run_dir", "resume", "force")
"""What config.yaml holds that says nothing about what was computed."""


def flat(values: dict[Any, Any], prefix: str = "") -> dict[str, str]:
    """Values as they would be typed, by dotted key."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = show(value) if value != {} else "{}"
    return found


def differences(configs: list[dict[Any, Any]]) -> list[tuple[str, list[str | None]]]:
    """Keys whose values differ, with the value of each configuration, None where it has no such key.

    A section that one of them leaves null appears as its keys alone.
    """
    flats = [flat({key: value for key, value in config.items() if key not in PLACES}) for config in configs]
    keys = list(dict.fromkeys(key for values in flats for key in values))
    found = []
    for key in keys:
        values = [values.get(key) for values in flats]
        section = any(other.startswith(f"{key}.") for other in keys)
        if len(set(values)) > 1 and not (section and set(values) <= {"null", None}):
            found.append((key, values))
    return found
