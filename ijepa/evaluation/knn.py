"""Weighted k-nearest-neighbour classification (Wu et al., 1805.01978, section 3.4), as DINO uses it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.config import Knn
from ijepa.evaluation.features import Features

CHUNK = 1 << 24
"""Similarities held at once: 64 MiB in float32."""


def evaluate(task: Knn, train: Features, test: Features, seed: int) -> dict[str, dict[str, float]]:
    """By label set: top-1 accuracy for each k, from labelled ``train`` features to ``test`` features."""
    results: dict[str, dict[str, float]] = {}
    for name, truth in test.labels.items():
        predicted = predict(train.values, train.labels[name], test.values, task.k, task.temperature, task.center)
        results[name] = {f"knn{k}": (labels == truth).float().mean().item() for k, labels in predicted.items()}
    return results


def predict(
    train: Tensor, labels: Tensor, values: Tensor, ks: list[int], temperature: float, center: bool
) -> dict[int, Tensor]:
    """The predicted class [n] for each k: votes of the k most similar, weighted by exp(cosine / temperature).

    Exact, in chunks: the n x m matrix of similarities is never whole in memory.

    Args:
        train: [m, D] features.
        labels: [m], theirs.
        values: [n, D] features.
        ks: how many neighbours vote.
        temperature: of the weights.
        center: subtract the mean of ``train`` first.
    """
    mean = train.mean(dim=0) if center else torch.zeros(())
    keys = F.normalize(train - mean, dim=1)
    queries = F.normalize(values - mean, dim=1)
    classes = int(labels.max()) + 1
    results: dict[int, list[Tensor]] = {k: [] for k in ks}
    most = min(max(ks), len(keys))
    for chunk in queries.split(max(CHUNK // len(keys), 1)):
        similarity, neighbours = (chunk @ keys.T).topk(most, dim=1)  # [b, most]
        weights = ((similarity - 1) / temperature).exp()
        votes = labels[neighbours]
        for k in ks:
            scores = torch.zeros(len(chunk), classes).scatter_add_(1, votes[:, :k], weights[:, :k])
            results[k].append(scores.argmax(dim=1))
    return {k: torch.cat(chunks) for k, chunks in results.items()}
