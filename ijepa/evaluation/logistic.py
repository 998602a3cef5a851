"""Logistic regression on standardised frozen features; the L2 strength is chosen on held-out training images."""

import copy
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ijepa.config import Logistic
from ijepa.evaluation.features import Features
from ijepa.randomness import words

HOLDOUT_STREAM = 6


def evaluate(task: Logistic, train: Features, test: Features, seed: int) -> dict[str, dict[str, float]]:
    """By label set: top-1 accuracy on ``test``, and the chosen strength of the penalty."""
    values, others = train.values.numpy(), test.values.numpy()
    if task.components is not None and min(values.shape) > task.components:
        scaler = StandardScaler().fit(values)
        values, others = scaler.transform(values), scaler.transform(others)
        pca = PCA(task.components, svd_solver="randomized", iterated_power=2, random_state=seed % 2**32).fit(values)
        values, others = pca.transform(values), pca.transform(others)
    return {
        name: _accuracy(task, values, train.labels[name].numpy(), others, truth.numpy(), seed)
        for name, truth in test.labels.items()
    }


def _accuracy(
    task: Logistic,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    others: NDArray[np.float32],
    truth: NDArray[np.int64],
    seed: int,
) -> dict[str, float]:
    classes = len(np.unique(labels))
    if classes < 2:
        return {"logistic": float((truth == labels[0]).mean()), "logistic_l2": max(task.l2)}
    order = np.argsort(words(seed, HOLDOUT_STREAM, 0, np.arange(len(labels)), 1)[:, 0], kind="stable")
    held, kept = np.split(order, [max(round(task.holdout * len(order)), 1)])
    best, model = max(task.l2), _model(task)
    enough = len(np.unique(labels[kept]))
    if enough > 1:
        best, model = _strongest_first(task, values[kept], labels[kept], values[held], labels[held])
    if enough < classes:
        model = _model(task)  # some classes are held out whole: a model without them is no start
    scaler = StandardScaler().fit(values)
    _fit(model, best, scaler.transform(values), labels)
    return {"logistic": float(model.score(scaler.transform(others), truth)), "logistic_l2": best}


def _strongest_first(
    task: Logistic,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    others: NDArray[np.float32],
    truth: NDArray[np.int64],
) -> tuple[float, LogisticRegression]:
    """The strength that is best on ``others``, and its model; each fit starts where the last one ended."""
    scaler = StandardScaler().fit(values)
    values, others = scaler.transform(values), scaler.transform(others)
    model = _model(task)
    scores: list[float] = []
    models: list[LogisticRegression] = []
    strengths = sorted(task.l2, reverse=True)
    for l2 in strengths:
        _fit(model, l2, values, labels)
        scores.append(float(model.score(others, truth)))
        models.append(copy.copy(model))
        if len(scores) > 2 and max(scores[-2:]) < max(scores[:-2]):
            break  # weaker penalties take ever longer and, past the best, only overfit more
    best = int(np.argmax(scores))
    return strengths[best], models[best]


def _model(task: Logistic) -> LogisticRegression:
    return LogisticRegression(max_iter=task.max_iterations, warm_start=True)


def _fit(model: LogisticRegression, l2: float, values: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    model.C = 1 / (l2 * len(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties may not converge: the sweep judges
        model.fit(values, labels)
