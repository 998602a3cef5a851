"""Classes that a file names: they are imported only if the user allows their package, since files may be foreign.

A run's config.yaml, a checkpoint or a classifier can name any class or function there is. What the user types, or has
in a configuration of their own, needs no permission.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ijepa.config.custom import TARGET
from ijepa.config.fields import Section
from ijepa.util import commands
from ijepa.util.errors import ConfigError

_trusted: list[str] = []


class UntrustedError(ConfigError):
    """A file names a class of a package that the user has not allowed."""


@contextlib.contextmanager
def trusting(packages: str | Iterable[str]) -> Iterator[None]:
    """Allows classes of these packages, or modules, in this context."""
    added = package_names(packages)
    _trusted.extend(added)
    try:
        yield
    finally:
        del _trusted[len(_trusted) - len(added) :]


def package_names(packages: str | Iterable[str]) -> tuple[str, ...]:
    """One package or several, as names."""
    several = isinstance(packages, Iterable) and not isinstance(packages, str)
    return tuple(str(package) for package in (packages if several else [packages]))


def check_target(key: str, target: str, file: Path) -> None:
    """Raises UntrustedError if ``target``, which ``file`` gives for ``key``, is of a package that is not allowed."""
    if not any(target == package or target.startswith(f"{package}.") for package in _trusted):
        package = target.partition(".")[0]
        remedy = f"if you know the file, add {commands.typed(f'trust={package}')}"
        problem = f"{file} names this class, whose code would run; {remedy}"
        raise UntrustedError(key, target, problem)


def check_targets(values: Mapping[str, Any], file: Path, allowed: Mapping[str, str] | None = None) -> None:
    """`check_target` for every class in the configuration ``values``, from ``file``.

    ``allowed``: names by key that the user has typed.
    """
    for key, target in targets(values).items():
        if (allowed or {}).get(key) != target:
            check_target(key, target, file)


def typed_trust(config: Section) -> str:
    """The end of a printed command that uses a run with this configuration: `` trust=my_package``, or nothing."""
    packages = sorted({target.partition(".")[0] for target in targets(config.model_dump(by_alias=True)).values()})
    value = packages[0] if len(packages) == 1 else f"[{','.join(packages)}]"
    return f" {commands.typed(f'trust={value}')}" if packages else ""


def targets(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The classes and functions that a configuration names, by key."""
    found: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= targets(value, f"{key}.")
        elif name == TARGET or (key in ("data.source", "source") and "." in str(value)):
            found[key] = str(value)
    return found
