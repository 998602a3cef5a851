"""The command ``python train.py`` or ``ijepa train``: pretrains."""

from typing import TYPE_CHECKING

from ijepa.util import signals, threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> float | None:
    """Trains one run; returns the value of its metric, for sweeps."""
    from ijepa.cli.loading import loading

    with loading("torch and lightning"):
        from ijepa.run import runs

    return runs.train(composed)


def run() -> None:
    """Entry point of the command."""
    signals.leave_sigint_to_system()
    threads.limit_openmp_spinning()
    from ijepa.cli import entry

    entry.main("train", main)


if __name__ == "__main__":
    run()
