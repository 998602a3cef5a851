"""Weighted k-NN classification (Wu et al., 1805.01978, section 3.4), as in DINO."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.config import Knn
from ijepa.evaluation import specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import accuracy
from ijepa.evaluation.task import ConfiguredTask, MetricSpec

CHUNK = 1 << 24
"""Similarities in memory at once: 64 MiB in float32."""


class KnnTask(ConfiguredTask[Knn]):
    """k-NN accuracy for each k."""

    name = "knn"

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy on the validation images for each k."""
        return score(self.config, *ctx.features(model, ctx.layers, self.config.batch_size))

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One metric per k; with ``several`` tasks, the headline k only."""
        return [specs.KNN.instance(k=k) for k in ([self.config.headline] if several else self.config.k)]


def score(config: Knn, train: Features, test: Features) -> dict[str, TaskResult]:
    """By label set: top-1 accuracy on ``test`` for each k; the neighbours are those in ``train``."""
    predicted = predict(train.values, train.labels, test.values, config.k, config.temperature, config.center)
    names = {k: specs.KNN.instance(k=k).name for k in config.k}
    return {
        name: TaskResult({names[k]: accuracy(classes, test.labels[name]) for k, classes in by_k.items()})
        for name, by_k in predicted.items()
    }


def predict(
    train: Tensor, labels: dict[str, Tensor], values: Tensor, ks: list[int], temperature: float, center: bool
) -> dict[str, dict[int, Tensor]]:
    """The predicted class [n] by label set and k: votes of the k most similar, weighted by exp(cosine / temperature).

    Exact, in chunks: the n x m similarities are never all in memory.

    Args:
        train: [m, D] features.
        labels: [m] classes of ``train`` by label set.
        values: [n, D] features.
        ks: numbers of voting neighbours.
        temperature: of the votes' weights.
        center: subtract the mean of ``train`` first.
    """
    classes = {name: int(train_classes.max()) + 1 for name, train_classes in labels.items()}
    results: dict[str, dict[int, list[Tensor]]] = {name: {k: [] for k in ks} for name in labels}
    for similarity, nearest in neighbours(train, values, max(ks), center):
        weights = ((similarity - 1) / temperature).exp()
        for name, train_classes in labels.items():
            votes = train_classes[nearest]
            for k in ks:
                scores = torch.zeros(len(votes), classes[name]).scatter_add_(1, votes[:, :k], weights[:, :k])
                results[name][k].append(scores.argmax(dim=1))
    return {name: {k: torch.cat(chunks) for k, chunks in by_k.items()} for name, by_k in results.items()}


def neighbours(train: Tensor, values: Tensor, count: int, center: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Nearest neighbours by cosine similarity of ``values`` [n, D] in ``train`` [m, D].

    Yields chunks: similarities [b, count], descending, and the neighbours' rows in ``train`` [b, count].
    """
    mean = train.mean(dim=0) if center else torch.zeros(())
    keys = F.normalize(train - mean, dim=1)
    for chunk in F.normalize(values - mean, dim=1).split(max(CHUNK // len(keys), 1)):
        similarity, nearest = (chunk @ keys.T).topk(min(count, len(keys)), dim=1)
        yield similarity, nearest
