"""What the user can mend: one line on stderr, exit code 2."""

import errno
from typing import Any

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG)
"""Nothing can be written there, and that is no fault of the software."""


class UserError(ValueError):
    """A fault in what the user gave; the message is one line that says what would do."""

    exit_code = 2


class ConfigError(UserError):
    """A fault in one configuration value, shown as ``key=value: what is wrong and what would do``."""

    def __init__(self, key: str, value: Any, problem: str) -> None:
        super().__init__(f"{key}={show(value)}: {problem}")
        self.problem = problem
        self._given = key, value, problem

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, Any, str]]:
        """Travels from the process of a job to that of its sweep."""
        return type(self), self._given


class UnavailableError(ConfigError):
    """The images lack what a task needs: it can be left out."""


def show(value: Any) -> str:
    """``value`` as it would be typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(show(item) for item in value)}]"
    return str(value)


def one_line(text: str) -> str:
    """A text, a file's name for example, on one line; bytes that are no UTF-8 are spelt out."""
    return "".join(character if character.isprintable() else _spelt(character) for character in text)


def _spelt(character: str) -> str:
    byte = ord(character) - 0xDC00  # what Python makes of bytes in names that are no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


class StoppedJobError(Exception):
    """Ctrl-C ended a job of a sweep in a process of its own: what its `InterruptedRunError` becomes on the way back."""


class InterruptedRunError(BaseException):
    """A signal ended the run early. Like KeyboardInterrupt, no handler of errors is to catch it on the way."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal

    def __reduce__(self) -> tuple[type["InterruptedRunError"], tuple[int, str]]:
        return type(self), (self.signal, str(self))
