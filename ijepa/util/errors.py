"""Errors that the user can fix: one line on stderr, exit code 2."""

import errno
from typing import Any

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG)
"""Error numbers that mean that a file cannot be written, for reasons outside of the software."""


class UserError(ValueError):
    """An error in the user's input; the message is one line: what is wrong; what to try."""

    exit_code = 2


class ConfigError(UserError):
    """An error in one configuration value, shown as ``key=value: what is wrong; what to try``."""

    def __init__(self, key: str, value: Any, problem: str) -> None:
        super().__init__(f"{key}={show(value)}: {problem}")
        self.problem = problem
        self._given = key, value, problem

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, Any, str]]:
        """Pickled from the process of a job to that of its sweep."""
        return type(self), self._given


class UnavailableError(ConfigError):
    """The data lacks labels or maps that a task needs; the task can be skipped."""


def show(value: Any) -> str:
    """``value`` as typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(show(item) for item in value)}]"
    return str(value)


def one_line(text: str) -> str:
    """A text, such as a file name, on one line; unprintable characters and bytes that are not UTF-8 are escaped."""
    return "".join(character if character.isprintable() else _spelt(character) for character in text)


def _spelt(character: str) -> str:
    byte = ord(character) - 0xDC00  # what Python makes of bytes in names that are no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


class StoppedJobError(Exception):
    """Ctrl-C ended a sweep's job in a worker process; replaces its `InterruptedRunError` in the sweep's process."""


class InterruptedRunError(BaseException):
    """A signal ended the run early. Not an Exception, like KeyboardInterrupt, so that no error handler catches it."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal

    def __reduce__(self) -> tuple[type["InterruptedRunError"], tuple[int, str]]:
        return type(self), (self.signal, str(self))
