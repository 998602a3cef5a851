"""Evaluate: ``python evaluate.py checkpoint=RUN_DIR|FILE task=knn|logistic``; ``--help`` explains every key."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C within the imports ends without a traceback

from ijepa.cli import evaluate  # noqa: E402

if __name__ == "__main__":
    evaluate.run()
