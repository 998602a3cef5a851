"""The console command ``ijepa COMMAND ...`` or ``python -m ijepa``: runs the command's module as ``python -m`` does."""

import contextlib
import difflib
import os
import runpy
import sys
from pathlib import Path

from ijepa import __version__
from ijepa.util.commands import CONSOLE_VARIABLE
from ijepa.util.errors import UserError

COMMANDS = {
    "train": ("ijepa.cli.train", "pretrain on images"),
    "evaluate": ("ijepa.cli.evaluate", "evaluate a checkpoint: k-NN, linear probes, fine-tuning, pictures, ..."),
    "predict": ("ijepa.cli.predict", "predict classes or maps of new images with what evaluate has left"),
    "convert": ("ijepa.interop", "write an encoder for timm, transformers, ONNX, ..."),
    "inspect": ("ijepa.interop", "show what a file of weights holds"),
    "report": ("ijepa.report", "write a page about a run, several runs or a sweep"),
    "statistics": ("ijepa.data.statistics", "compute your images' mean and std and save them as data=NAME"),
    "verify": ("ijepa.data.verify", "decode every image once; name unreadable files and duplicates"),
}
"""Module and purpose of each command."""
SUBCOMMANDS = ("convert", "inspect")
"""Commands that are subcommands of their module's command line."""


def main() -> int:
    """Runs the command that sys.argv names; returns the exit code, unless the command calls sys.exit."""
    name, *arguments = sys.argv[1:] or ["help"]
    if name == "help" and arguments:
        name, *arguments = [arguments[0], "--help"]
    if name in ("help", "--help", "-h"):
        with contextlib.suppress(BrokenPipeError):  # `ijepa --help | head`
            print(_help(), flush=True)
        return 0
    if name == "--version":
        print(f"ijepa {__version__}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f"did you mean {close[0]}?" if close else f"try {', '.join(COMMANDS)}"
        print(f"error: {name}: no such command; {meant}", file=sys.stderr)
        return UserError.exit_code
    os.environ[CONSOLE_VARIABLE] = "1"
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does, so that a `_target_` of the user's is found
    # As __main__, with alter_sys: Lightning then starts the processes of other devices as `python -m MODULE ...`.
    sys.argv[1:] = [name, *arguments] if name in SUBCOMMANDS else arguments
    runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    return 0


def _help() -> str:
    lines = [f"  {name:<12} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(["usage: ijepa COMMAND ...", "", *lines, "", "ijepa COMMAND --help explains each one's options."])


if __name__ == "__main__":
    sys.exit(main())
