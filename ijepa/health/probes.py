"""Leave-one-out accuracies of k-NN and a linear classifier on the held-out images, without training images.

They track a run; for numbers to report, use `python evaluate.py`, which uses all training images.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.data.sets import UNLABELLED

NEIGHBOURS, TEMPERATURE = 10, 0.07
"""Number of voting neighbours (few, because there are few images per class), and softmax temperature."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for the ridge penalty, in units of the features' mean variance."""


def knn(features: Tensor, labels: Tensor) -> float:
    """Leave-one-out accuracy of weighted k-NN.

    Args:
        features: [n, D]; centred, then compared by cosine similarity.
        labels: [n] class indices, `UNLABELLED` if there is no label.
    """
    features, labels = _labelled(features, labels)
    if not _can_classify(features, labels):
        return math.nan
    values = F.normalize(features - features.mean(dim=0), dim=1)
    similar = (values @ values.T).fill_diagonal_(-torch.inf)
    similarity, nearest = similar.topk(min(NEIGHBOURS, len(labels) - 1))
    votes = torch.zeros(len(labels), int(labels.max()) + 1, dtype=values.dtype)
    votes.scatter_add_(1, labels[nearest], ((similarity - 1) / TEMPERATURE).exp())
    return float((votes.argmax(dim=1) == labels).double().mean())


def linear(features: Tensor, labels: Tensor) -> float:
    """Leave-one-out accuracy of a ridge classifier.

    All n fits are computed at once: the leave-one-out prediction for image i follows from the fit with all images, as
    y_i - (y_i - f_i) / (1 - h_ii) with the hat matrix h (Allen's PRESS, 1974). The penalty is the one with the lowest
    leave-one-out squared error; it is not chosen by accuracy.

    Args:
        features: [n, D].
        labels: [n] class indices, `UNLABELLED` if there is no label.
    """
    features, labels = _labelled(features, labels)
    if not _can_classify(features, labels):
        return math.nan
    centred = features - features.mean(dim=0)
    truth = F.one_hot(labels).to(centred) * 2 - 1
    values, vectors = torch.linalg.eigh(centred @ centred.T)  # [n, n] rather than [D, D]: equivalent, and n is small
    values = values.clamp_min(0)
    projected = vectors.T @ (truth - truth.mean(dim=0))
    best, accuracy = math.inf, math.nan
    for ridge in RIDGES:
        shrinkage = values / (values + ridge * values.mean() + torch.finfo(values.dtype).tiny)
        hat = (vectors.square() @ shrinkage + 1 / len(labels)).clamp_max(1 - 1e-9)  # 1 / n: the mean is fitted, too
        residual = (truth - truth.mean(dim=0) - vectors @ (shrinkage[:, None] * projected)) / (1 - hat)[:, None]
        error = float(residual.square().mean())
        if error < best:
            best, accuracy = error, float(((truth - residual).argmax(dim=1) == labels).double().mean())
    return accuracy


def _labelled(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    is_labelled = labels != UNLABELLED
    return features[is_labelled].double().cpu(), labels[is_labelled].cpu()


def _can_classify(features: Tensor, labels: Tensor) -> bool:
    return len(labels) > 1 and bool(features.isfinite().all()) and int(labels.min()) != int(labels.max())
