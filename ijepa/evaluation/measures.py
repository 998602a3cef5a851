"""Metric values on a test set, with 95 % intervals bootstrapped over its images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from ijepa.util.randomness import Stream, seed_of

RESAMPLES = 1000
"""Number of bootstrap samples."""
CHUNK = 1 << 24
"""Drawn image indices in memory at once."""


def _ratio(sums: Tensor) -> Tensor:
    return sums[:, 0] / sums[:, 1]


@dataclass(frozen=True)
class MetricValue:
    """The value of a metric, with what its bootstrap interval needs.

    Attributes:
        value: over all test images.
        per_image: [n, S] contributions of each image; None: no interval, for example of a chosen hyperparameter.
        statistic: from sums of contributions [R, S] to values [R]; by default the ratio of the first two.
    """

    value: float
    per_image: Tensor | None = None
    statistic: Callable[[Tensor], Tensor] = _ratio

    def interval(self, seed: int) -> tuple[float, float] | None:
        """The 2.5th and the 97.5th percentile over `RESAMPLES` bootstrap samples; None: too few of them are finite."""
        if self.per_image is None or not len(self.per_image):
            return None
        count = len(self.per_image)
        generator = np.random.Generator(np.random.PCG64(seed_of(seed, Stream.BOOTSTRAP, 0, count)))
        per_image, sums, remaining = self.per_image.double(), [], RESAMPLES
        while remaining:
            rows = min(max(CHUNK // count, 1), remaining)
            remaining -= rows
            drawn = generator.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
            weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
            sums.append(torch.from_numpy(weights).double() @ per_image)
        values = self.statistic(torch.cat(sums))
        values = values[values.isfinite()]  # a sample may hold no valid image
        if len(values) < RESAMPLES / 2:
            return None
        low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high


def accuracy(predicted: Tensor, labels: Tensor) -> MetricValue:
    """Top-1 accuracy of ``predicted`` classes [n] for ``labels`` [n]."""
    classes = int(torch.maximum(predicted.max(), labels.max())) + 1
    value = multiclass_accuracy(predicted, labels, num_classes=max(classes, 2), average="micro").item()
    correct = (predicted == labels).double()
    return MetricValue(value, torch.stack([correct, torch.ones_like(correct)], dim=1))
