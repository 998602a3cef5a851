"""Pretrain: ``python train.py [key=value ...]``; ``--help`` explains every key."""

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> float | None:
    """One run; returns the headline accuracy, for sweeps."""
    from ijepa import cli

    with cli.importing():  # torch and Lightning take seconds to import: not for --help or a misspelt key
        from ijepa import runs

    return runs.train(composed)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from within the imports; cli.main takes over
    from ijepa import cli

    cli.main("train", main)
