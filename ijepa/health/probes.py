"""Accuracies on held-out images alone, each told by all the others: no further image has to be read.

They follow a run; for figures to report, `python evaluate.py` classifies with all the training images.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS, TEMPERATURE = 10, 0.07
"""Votes, and how steeply they fall with distance: few, for there are few images of a class."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths to choose from, in units of the features' mean variance."""
UNKNOWN = -1
"""The class of an image without a label."""


def knn(features: Tensor, labels: Tensor) -> float:
    """The share of images that their nearest neighbours among the others tell right.

    Args:
        features: [n, D]; their mean is subtracted, and they are compared by cosine.
        labels: [n] class indices, `UNKNOWN` where there is none.
    """
    features, labels = _known(features, labels)
    if not _possible(features, labels):
        return math.nan
    values = F.normalize(features - features.mean(dim=0), dim=1)
    similar = (values @ values.T).fill_diagonal_(-torch.inf)
    similarity, nearest = similar.topk(min(NEIGHBOURS, len(labels) - 1))
    votes = torch.zeros(len(labels), int(labels.max()) + 1, dtype=values.dtype)
    votes.scatter_add_(1, labels[nearest], ((similarity - 1) / TEMPERATURE).exp())
    return float((votes.argmax(dim=1) == labels).double().mean())


def linear(features: Tensor, labels: Tensor) -> float:
    """The share of images that a ridge classifier fitted to all the others tells right.

    All n fits at once: what image i's prediction would be without it follows from the fit with it, as
    y_i - (y_i - f_i) / (1 - h_ii) with the hat matrix h (Allen's PRESS, 1974). The strength with the least such
    squared error is taken; accuracy does not choose.

    Args:
        features: [n, D].
        labels: [n] class indices, `UNKNOWN` where there is none.
    """
    features, labels = _known(features, labels)
    if not _possible(features, labels):
        return math.nan
    centred = features - features.mean(dim=0)
    truth = F.one_hot(labels).to(centred) * 2 - 1
    values, vectors = torch.linalg.eigh(centred @ centred.T)  # of [n, n]: as good as [D, D] where n < D, and no worse
    values = values.clamp_min(0)
    turned = vectors.T @ (truth - truth.mean(dim=0))
    best, accuracy = math.inf, math.nan
    for ridge in RIDGES:
        kept = values / (values + ridge * values.mean() + torch.finfo(values.dtype).tiny)
        hat = (vectors.square() @ kept + 1 / len(labels)).clamp_max(1 - 1e-9)  # with the mean, which is fitted, too
        missed = (truth - truth.mean(dim=0) - vectors @ (kept[:, None] * turned)) / (1 - hat)[:, None]
        error = float(missed.square().mean())
        if error < best:
            best, accuracy = error, float(((truth - missed).argmax(dim=1) == labels).double().mean())
    return accuracy


def _known(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    kept = labels != UNKNOWN
    return features[kept].double().cpu(), labels[kept].cpu()


def _possible(features: Tensor, labels: Tensor) -> bool:
    return len(labels) > 1 and bool(features.isfinite().all()) and int(labels.min()) != int(labels.max())
