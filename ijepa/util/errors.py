"""Errors that the user can fix: one line on stderr, exit code 2."""

import errno
from typing import Any

UNWRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EISDIR,
    errno.ENOTDIR, errno.ENOENT, errno.EIO, errno.ESTALE,
)  # fmt: skip
"""Values of errno for files that cannot be used for reasons outside of the software: a full disk, ..."""
TOO_DEEP = "what was given, or a file, is nested too deeply; give fewer brackets within brackets"
"""Said of a RecursionError."""


class UserError(ValueError):
    """An error that the user can fix; the message is one line: what is wrong; what to try."""

    exit_code = 2


class ConfigError(UserError):
    """An error in one configuration value, shown as ``key=value: what is wrong; what to try``."""

    def __init__(self, key: str, value: Any, problem: str) -> None:
        super().__init__(f"{key}={show(value)}: {problem}")
        self.problem = problem
        self._arguments = key, value, problem

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, Any, str]]:
        """For pickle: launchers send it from a job's process to the sweep's."""
        return type(self), self._arguments


class UnavailableError(ConfigError):
    """The data has no labels or maps that a task needs; the task can be skipped."""


def show(value: Any) -> str:
    """``value`` as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(show(item) for item in value)}]"
    return str(value)


def one_line(text: str) -> str:
    """``text`` on one line, for file names, too: unprintable characters and bytes that are not UTF-8 are escaped."""
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python decodes bytes of file names that are not UTF-8 as surrogates
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


class StoppedJobError(Exception):
    """Ctrl-C ended a sweep's job in a worker process, which returns this instead of its `InterruptedRunError`."""


class InterruptedRunError(BaseException):
    """A signal ended the run early. Not an Exception, like KeyboardInterrupt, so that no error handler catches it."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal

    def __reduce__(self) -> tuple[type["InterruptedRunError"], tuple[int, str]]:
        return type(self), (self.signal, str(self))
