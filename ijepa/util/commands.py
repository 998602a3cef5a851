"""How commands are typed, and the shared code of those that use argparse: one-line errors, exit codes."""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ijepa.util.errors import InterruptedRunError, UserError, one_line
from ijepa.util.overrides import quoted
from ijepa.util.paths import INSTALLED

CONSOLE_VARIABLE = "IJEPA_CONSOLE"
"""Environment variable that the console command `ijepa` sets, for itself and for the processes that it starts."""
IN_CHECKOUT = {
    "train": "python train.py",
    "evaluate": "python evaluate.py",
    "predict": "python predict.py",
    "statistics": "python -m ijepa.data.statistics",
    "report": "python -m ijepa.report",
    "inspect": "python -m ijepa.interop inspect",
    "convert": "python -m ijepa.interop convert",
}
"""How each command is typed in a checkout."""

REPEAT_SECONDS = 0.5
"""A signal that comes twice within this time was sent once: `timeout` sends it to the process and to its group."""

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


@contextlib.contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM raises `InterruptedRunError`, so that files are completed or removed; the next one ends the process."""
    received: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(time.monotonic())
        if len(received) == 1:
            raise InterruptedRunError(number, "stopped by SIGTERM")
        if received[-1] - received[0] > REPEAT_SECONDS:
            os._exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # outside the main thread, which receives no signals anyway
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors as one-line `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run(parser: Parser, job: Callable[[argparse.Namespace], None], arguments: list[str] | None) -> int:
    """Parses ``arguments`` and runs ``job``; prints user errors as one line and returns the exit code."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # during the imports
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stopping_on_sigterm():
            job(parser.parse_args(arguments))
        sys.stdout.flush()
    except UserError as error:
        return _print_error(str(error), error.exit_code)
    except BrokenPipeError:  # the reader has exited: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
