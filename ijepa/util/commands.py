"""How commands are typed, and the shared code of those that use argparse: one-line errors, exit codes."""

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ijepa.util.errors import TOO_DEEP, InterruptedRunError, UserError, one_line
from ijepa.util.overrides import quoted
from ijepa.util.paths import INSTALLED
from ijepa.util.signals import raising_on_sigint, stopping_on_sigterm

CONSOLE_VARIABLE = "IJEPA_CONSOLE"
"""Environment variable that the console command `ijepa` sets, for itself and for the processes that it starts."""
IN_CHECKOUT = {
    "train": "python train.py",
    "evaluate": "python evaluate.py",
    "predict": "python predict.py",
    "statistics": "python -m ijepa.data.statistics",
    "verify": "python -m ijepa.data.verify",
    "report": "python -m ijepa.report",
    "inspect": "python -m ijepa.interop inspect",
    "convert": "python -m ijepa.interop convert",
}
"""How each command is typed in a checkout."""

LEFT_TO_HYDRA = re.compile(r"""^(['"].*['"]|(?i:null)|\?\?\?|)$|\$\{""", re.DOTALL)
"""Texts that `ijepa.cli.verbatim` does not take as they are typed."""


def command_line(name: str) -> str:
    """How to type a command: ``ijepa NAME`` if that is how this process was started, or outside of a checkout."""
    return f"ijepa {name}" if INSTALLED or CONSOLE_VARIABLE in os.environ else IN_CHECKOUT[name]


def typed(text: str | Path) -> str:
    """``text`` as one word of a shell's command line, to be pasted."""
    text = str(text)
    if text.isprintable():
        return shlex.quote(text)
    escaped = "".join(f"\\{character}" if character in "\\'" else one_line(character) for character in text)
    return f"$'{escaped}'"


def override(key: str, value: str | Path) -> str:
    """``key=value`` as it is typed to have exactly this text, which neither the shell nor Hydra changes."""
    text = str(value)
    if LEFT_TO_HYDRA.search(text) or text != text.strip():
        text = quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))
    return typed(f"{key}={text}")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors as one-line `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run(parser: Parser, job: Callable[[argparse.Namespace], None], arguments: list[str] | None) -> int:
    """Parses ``arguments`` and runs ``job``; prints user errors as one line and returns the exit code."""
    try:
        with raising_on_sigint(), stopping_on_sigterm():
            job(parser.parse_args(arguments))
        sys.stdout.flush()
    except UserError as error:
        return _print_error(str(error), error.exit_code)
    except BrokenPipeError:  # the reader has exited: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RecursionError:
        return _print_error(TOO_DEEP, UserError.exit_code)
    except OSError as error:  # a file that cannot be read or written
        prefix = f"{error.filename}: " if error.filename else ""
        return _print_error(f"{prefix}{error.strerror or error}", UserError.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except InterruptedRunError as error:
        print(error, file=sys.stderr)
        return 128 + error.signal
    return 0


def _print_error(message: str, code: int) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return code
