"""The command that evaluates: ``python evaluate.py``, or ``ijepa evaluate``."""

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> float | None:
    """The tasks on one checkpoint; returns the headline result, for sweeps."""
    from ijepa.cli import entry

    with entry.importing():  # torch takes seconds to import: not for --help or a misspelt key
        from ijepa.run import evaluations

    return evaluations.evaluate(composed)


def run() -> None:
    """Does what the command line says, then exits."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; entry.main takes over
    from ijepa.cli import entry

    entry.main("evaluate", main)


if __name__ == "__main__":
    run()
