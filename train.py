"""Pretrain: ``python train.py [key=value ...]``; ``--help`` explains every key."""

from ijepa.cli import train

if __name__ == "__main__":
    train.run()
