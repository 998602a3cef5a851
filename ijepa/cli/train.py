"""The command ``python train.py`` or ``ijepa train``: pretrains."""

import signal
from typing import TYPE_CHECKING

from ijepa.util import threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> float | None:
    """Trains one run; returns the value of its metric, for sweeps."""
    from ijepa.cli import entry

    with entry.immediate_signals():  # torch and Lightning take seconds to import: not for --help or a misspelt key
        from ijepa.run import runs

    return runs.train(composed)


def run() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; entry.main takes over
    threads.sleep_soon()
    from ijepa.cli import entry

    entry.main("train", main)


if __name__ == "__main__":
    run()
