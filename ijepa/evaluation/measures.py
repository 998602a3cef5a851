"""Metrics of a test set, with 95 % intervals: bootstrapped over its images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from ijepa.util.randomness import Stream, seed_of

RESAMPLES = 1000
"""Test sets that are drawn from the images, with replacement."""
CHUNK = 1 << 24
"""Draws that are held at once."""


def _ratio(sums: Tensor) -> Tensor:
    return sums[:, 0] / sums[:, 1]


@dataclass(frozen=True)
class Measured:
    """A result.

    Attributes:
        value: over all test images.
        each: [n, S], what an image contributes; None where there is nothing to resample, as of a chosen setting.
        of: from sums over images [R, S] to results [R].
    """

    value: float
    each: Tensor | None = None
    of: Callable[[Tensor], Tensor] = _ratio

    def interval(self, seed: int) -> tuple[float, float] | None:
        """From the 2.5th to the 97.5th percentile of the result over `RESAMPLES` test sets, the same for a seed."""
        if self.each is None:
            return None
        count = len(self.each)
        generator = np.random.Generator(np.random.PCG64(seed_of(seed, Stream.BOOTSTRAP, 0, count)))
        each, sums, left = self.each.double(), [], RESAMPLES
        while left:
            rows = min(max(CHUNK // count, 1), left)
            left -= rows
            drawn = generator.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
            times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
            sums.append(torch.from_numpy(times).double() @ each)
        found = self.of(torch.cat(sums))
        found = found[found.isfinite()]  # a few test sets may hold nothing that counts
        if len(found) < RESAMPLES / 2:
            return None
        low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high


def accuracy(predicted: Tensor, labels: Tensor) -> Measured:
    """Top-1: the share of ``predicted`` classes [n] that are the ``labels`` [n]."""
    classes = int(torch.maximum(predicted.max(), labels.max())) + 1
    value = multiclass_accuracy(predicted, labels, num_classes=max(classes, 2), average="micro").item()
    right = (predicted == labels).double()
    return Measured(value, torch.stack([right, torch.ones_like(right)], dim=1))
