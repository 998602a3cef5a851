"""Differences between configurations, as flat keys."""

from typing import Any

from ijepa.util.errors import show

NON_RESULT_KEYS = ("defaults", "run_dir", "resume", "force")
"""Keys of config.yaml that do not affect results."""


def flat(values: dict[Any, Any], prefix: str = "") -> dict[str, str]:
    """Values as they are typed, by dotted key."""
    flattened: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flattened |= flat(value, f"{prefix}{key}.")
        else:
            flattened[f"{prefix}{key}"] = show(value) if value != {} else "{}"
    return flattened


def differences(configs: list[dict[Any, Any]]) -> list[tuple[str, list[str | None]]]:
    """Keys whose values differ, with the value in each configuration (None: no such key).

    If a section is null in one configuration, only its keys are listed.
    """
    flats = [flat({key: value for key, value in config.items() if key not in NON_RESULT_KEYS}) for config in configs]
    keys = list(dict.fromkeys(key for values in flats for key in values))
    differing = []
    for key in keys:
        values = [values.get(key) for values in flats]
        section = any(other.startswith(f"{key}.") for other in keys)
        if len(set(values)) > 1 and not (section and set(values) <= {"null", None}):
            differing.append((key, values))
    return differing
