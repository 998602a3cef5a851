"""How commands are called, and what those with argparse share: one line for a mistake, an end without a traceback."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from ijepa.util.errors import UserError, one_line
from ijepa.util.paths import INSTALLED

CONSOLE = "IJEPA_CONSOLE"
"""Set in the environment by the console command `ijepa`, for itself and for the processes that it starts."""
IN_CHECKOUT = {
    "train": "python train.py",
    "evaluate": "python evaluate.py",
    "statistics": "python -m ijepa.data.statistics",
    "report": "python -m ijepa.report",
    "inspect": "python -m ijepa.interop inspect",
    "convert": "python -m ijepa.interop convert",
}
"""Commands by name, as they are typed in a checkout."""


def typed(name: str) -> str:
    """How to type a command: ``ijepa NAME`` after the console command or without a checkout, else as in a checkout."""
    return f"ijepa {name}" if INSTALLED or CONSOLE in os.environ else IN_CHECKOUT[name]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; see {self.prog} --help")


def run(parser: Parser, job: Callable[[argparse.Namespace], None], arguments: list[str] | None) -> int:
    """Parses ``arguments`` and runs ``job``; returns the exit code: 2, with a one-line message, for user errors."""
    try:
        job(parser.parse_args(arguments))
        sys.stdout.flush()
    except UserError as error:
        return _print_error(str(error), error.exit_code)
    except BrokenPipeError:  # nobody reads on: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # what cannot be read or written
        named = f"{error.filename}: " if error.filename else ""
        return _print_error(f"{named}{error.strerror or error}", UserError.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _print_error(message: str, code: int) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return code
