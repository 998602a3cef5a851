"""Logistic regression on standardised frozen features; the L2 strength is chosen on held-out training images."""

import warnings
from collections.abc import Iterator

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
    order = np.argsort(words(seed, HOLDOUT_STREAM, 0, np.arange(len(labels)), 1)[:, 0], kind="stable")
    held, kept = np.split(order, [max(round(task.holdout * len(order)), 1)])
    strengths = sorted(task.l2, reverse=True)
    scores: list[float] = []
    for score in _path(task, strengths, values[kept], labels[kept], values[held], labels[held]):
        scores.append(score)
        if len(scores) > 2 and max(scores[-2:]) < max(scores[:-2]):
            break  # weaker penalties take ever longer and, past the best, only overfit more
    best = strengths[int(np.argmax(scores))]
    until = strengths[: strengths.index(best) + 1]
    *_, accuracy = _path(task, until, values, labels, others, truth)
    return {"logistic": accuracy, "logistic_l2": best}


def _path(
    task: Logistic,
    strengths: list[float],
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    others: NDArray[np.float32],
    truth: NDArray[np.int64],
) -> Iterator[float]:
    """Accuracy on ``others`` at each strength, from the strongest; each fit starts where the last one ended."""
    if len(np.unique(labels)) < 2:
        yield from [float((truth == labels[0]).mean())] * len(strengths)
        return
    scaler = StandardScaler().fit(values)
    values, others = scaler.transform(values), scaler.transform(others)
    model = LogisticRegression(max_iter=task.max_iterations, warm_start=True)
    for l2 in strengths:
        model.C = 1 / (l2 * len(values))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties may not converge: the sweep judges
            model.fit(values, labels)
        yield float(model.score(others, truth))
