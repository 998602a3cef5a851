"""The command ``python predict.py`` or ``ijepa predict``: predicts classes or maps of new images."""

import signal
from typing import TYPE_CHECKING

from ijepa.util import threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> None:
    """Predicts with one classifier."""
    from ijepa.cli import entry

    with entry.immediate_signals():  # torch takes seconds to import: not for --help or a misspelt key
        from ijepa.run import predictions

    predictions.predict(composed)


def run() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; entry.main takes over
    threads.sleep_soon()
    from ijepa.cli import entry

    entry.main("predict", main)


if __name__ == "__main__":
    run()
