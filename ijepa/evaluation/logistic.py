"""Logistic regression on standardised frozen features; the L2 strength is chosen on held-out training images."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ijepa.config import Logistic
from ijepa.evaluation.features import Features
from ijepa.randomness import words

HOLDOUT_STREAM = 6


def evaluate(task: Logistic, train: Features, test: Features, seed: int) -> dict[str, float]:
    """Top-1 accuracy on ``test``, and the chosen strength of the penalty."""
    order = np.argsort(words(seed, HOLDOUT_STREAM, 0, np.arange(len(train.labels)), 1)[:, 0], kind="stable")
    held, kept = np.split(order, [max(round(task.holdout * len(order)), 1)])
    values, labels = train.values.numpy().astype(np.float64), train.labels.numpy()
    scores = [_accuracy(task, l2, values[kept], labels[kept], values[held], labels[held]) for l2 in task.l2]
    best = task.l2[int(np.argmax(scores))]
    accuracy = _accuracy(task, best, values, labels, test.values.numpy().astype(np.float64), test.labels.numpy())
    return {"logistic": accuracy, "logistic_l2": best}


def _accuracy(
    task: Logistic, l2: float, values: np.ndarray, labels: np.ndarray, others: np.ndarray, truth: np.ndarray
) -> float:
    if len(np.unique(labels)) < 2:
        return float((truth == labels[0]).mean())
    scaler = StandardScaler().fit(values)
    model = LogisticRegression(C=1 / (l2 * len(values)), max_iter=task.max_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties may not converge; the sweep judges them
        model.fit(scaler.transform(values), labels)
    return float(model.score(scaler.transform(others), truth))
