"""Evaluate: ``python evaluate.py checkpoint=RUN_DIR|FILE task=knn|logistic``; ``--help`` explains every key."""

from ijepa.cli import evaluate

if __name__ == "__main__":
    evaluate.run()
