"""Evaluate: ``python evaluate.py checkpoint=RUN_DIR|FILE task=knn|logistic``; ``--help`` explains every key."""

from omegaconf import DictConfig

from ijepa import cli


def main(composed: DictConfig) -> float | None:
    """One task on one checkpoint; returns the headline result, for sweeps."""
    from ijepa import evaluations  # torch takes seconds to import: not for --help or a misspelt key

    return evaluations.evaluate(composed)


if __name__ == "__main__":
    cli.main("evaluate", main)
