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


class InterruptedRunError(BaseException):
    """A signal ended the run early. Like KeyboardInterrupt, no handler of errors is to catch it on the way."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
