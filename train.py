"""Pretrain: ``python train.py [key=value ...]``; ``--help`` explains every key."""

from omegaconf import DictConfig

from ijepa import cli


def main(composed: DictConfig) -> float | None:
    """One run; returns the headline accuracy, for sweeps."""
    from ijepa import runs  # torch and Lightning take seconds to import: not for --help or a misspelt key

    return runs.train(composed)


if __name__ == "__main__":
    cli.main("train", main)
