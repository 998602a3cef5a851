"""The command ``python predict.py`` or ``ijepa predict``: predicts classes or maps of new images."""

from typing import TYPE_CHECKING

from ijepa.util import signals, threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> None:
    """Predicts with one classifier."""
    from ijepa.cli.loading import loading

    with loading("torch"):
        from ijepa.run import predictions

    predictions.predict(composed)


def run() -> None:
    """Entry point of the command."""
    signals.leave_sigint_to_system()
    threads.limit_openmp_spinning()
    from ijepa.cli import entry

    entry.main("predict", main)


if __name__ == "__main__":
    run()
