"""The command ``python evaluate.py`` or ``ijepa evaluate``: evaluates a checkpoint."""

from typing import TYPE_CHECKING

from ijepa.util import signals, threads

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(composed: "DictConfig") -> float | None:
    """Evaluates one checkpoint; returns the headline result, for sweeps."""
    from ijepa.cli.loading import loading

    with loading("torch"):
        from ijepa.run import evaluations

    return evaluations.evaluate(composed)


def run() -> None:
    """Entry point of the command."""
    signals.leave_sigint_to_system()
    threads.limit_openmp_spinning()
    from ijepa.cli import entry

    entry.main("evaluate", main)


if __name__ == "__main__":
    run()
