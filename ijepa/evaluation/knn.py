"""Weighted k-nearest-neighbour classification (Wu et al., 1805.01978, section 3.4), as DINO uses it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.config import Knn
from ijepa.evaluation.features import Features

CHUNK = 1 << 24
"""Similarities held at once: 64 MiB in float32."""


def evaluate(task: Knn, train: Features, test: Features, seed: int) -> dict[str, float]:
    """Top-1 accuracy for each k, from labelled ``train`` features to ``test`` features."""
    predicted = predict(train, test.values, task.k, task.temperature, task.center)
    return {f"knn{k}": (labels == test.labels).float().mean().item() for k, labels in predicted.items()}


def predict(train: Features, values: Tensor, ks: list[int], temperature: float, center: bool) -> dict[int, Tensor]:
    """The predicted class [n] for each k: votes of the k most similar, weighted by exp(cosine / temperature).

    Exact, in chunks: the n x m matrix of similarities is never whole in memory.
    """
    mean = train.values.mean(dim=0) if center else torch.zeros(())
    keys = F.normalize(train.values - mean, dim=1)
    queries = F.normalize(values - mean, dim=1)
    classes = int(train.labels.max()) + 1
    results: dict[int, list[Tensor]] = {k: [] for k in ks}
    most = min(max(ks), len(keys))
    for chunk in queries.split(max(CHUNK // len(keys), 1)):
        similarity, neighbours = (chunk @ keys.T).topk(most, dim=1)  # [b, most]
        weights = ((similarity - 1) / temperature).exp()
        votes = train.labels[neighbours]
        for k in ks:
            scores = torch.zeros(len(chunk), classes).scatter_add_(1, votes[:, :k], weights[:, :k])
            results[k].append(scores.argmax(dim=1))
    return {k: torch.cat(chunks) for k, chunks in results.items()}
