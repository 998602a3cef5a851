"""Pretrain: ``python train.py [key=value ...]``; ``--help`` explains every key."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C within the imports ends without a traceback

from ijepa.cli import train  # noqa: E402

if __name__ == "__main__":
    train.run()
