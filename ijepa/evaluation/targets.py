"""The kinds of maps that dense probes predict, with their losses and metrics."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.evaluation.measures import MetricValue
from ijepa.interop.dense import Kind, values_of

DELTA_1 = 1.25
"""A depth counts as correct within this factor (Eigen et al., 1406.2283)."""
LAMBDA = 0.5
"""Of the scale-invariant loss: 0 is the mean squared error; with 1 the loss ignores a factor common to an image."""


class Target(ABC):
    """A kind of map.

    Attributes:
        kind: its name: ``depth`` or ``segmentation``.
        outputs: number K of outputs per pixel.
    """

    kind: Kind
    outputs: int

    @abstractmethod
    def start(self, maps: Tensor) -> Tensor:
        """Initial biases [K], from some maps [B, H, W]."""

    @abstractmethod
    def loss(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """The loss of outputs [B, K, H, W]; 0 if the maps [B, H, W] have no valid pixel."""

    def values(self, predicted: Tensor) -> Tensor:
        """From outputs [B, K, H, W] to predicted maps [B, H, W]."""
        return values_of(self.kind, predicted)

    @abstractmethod
    def outcomes(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """Each image's contributions to the metrics: [B, S] float64 on the CPU; metrics follow from their sums."""

    @abstractmethod
    def results(self, outcomes: Tensor) -> dict[str, MetricValue]:
        """The metrics, by name, from the outcomes of all images [n, S]."""

    @abstractmethod
    def selection_score(self, results: dict[str, MetricValue]) -> float:
        """The score by which the best head is chosen, from its results on held-out images; higher is better."""


class DepthTarget(Target):
    """Log depth, with the scale-invariant loss of Eigen et al. (1406.2283, equation 4, lambda = .5).

    As for delta_1, errors are ratios, equally important near and far; the problem is convex for linear heads. RMSE (in
    the maps' units) and delta_1 (fraction of pixels within a factor of 1.25) are computed over an image's known pixels,
    then averaged over images, as usual.
    """

    kind: Kind = "depth"
    outputs = 1

    def start(self, maps: Tensor) -> Tensor:
        known = maps[_known(maps)]
        return known.log().mean().view(1) if len(known) else maps.new_zeros(1)

    def loss(self, predicted: Tensor, maps: Tensor) -> Tensor:
        known = _known(maps)
        error = torch.where(known, predicted[:, 0] - torch.where(known, maps, 1).log(), 0)
        count = known.sum(dim=(1, 2)).clamp(min=1)
        losses = error.square().sum(dim=(1, 2)) / count - LAMBDA * (error.sum(dim=(1, 2)) / count).square()
        return losses.sum() / known.any(dim=(1, 2)).sum().clamp(min=1)

    def outcomes(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """delta_1, RMSE and 1 for each image; zeros if no pixel of an image is known."""
        known, values = _known(maps), self.values(predicted)
        truth = torch.where(known, maps, 1)
        count = known.sum(dim=(1, 2)).clamp(min=1)
        correct = known & (torch.maximum(values / truth, truth / values) < DELTA_1)
        squares = torch.where(known, (values - truth).square(), 0).sum(dim=(1, 2))
        rows = [correct.sum(dim=(1, 2)) / count, (squares / count).sqrt(), known.any(dim=(1, 2))]
        return torch.stack([row.float() for row in rows], dim=1).cpu().double()

    def results(self, outcomes: Tensor) -> dict[str, MetricValue]:
        delta, error, count = outcomes.unbind(dim=1)
        return {
            "depth_delta1": _mean(delta, count),
            "depth_rmse": _mean(error, count),
        }

    def selection_score(self, results: dict[str, MetricValue]) -> float:
        """Minus RMSE: delta_1 can reach 1 before a probe is good."""
        error = results["depth_rmse"].value
        return -error if math.isfinite(error) else -math.inf


class ClassTarget(Target):
    """One of K classes, with cross-entropy.

    mIoU is the mean of intersection over union, each summed over all images, over the classes that occur in the maps;
    accuracy is that of all pixels. Pixels with -1 do not count.
    """

    kind: Kind = "segmentation"

    def __init__(self, classes: int) -> None:
        self.outputs = classes

    def start(self, maps: Tensor) -> Tensor:
        return torch.zeros(self.outputs, device=maps.device)

    def loss(self, predicted: Tensor, maps: Tensor) -> Tensor:
        total = F.cross_entropy(predicted, maps, ignore_index=-1, reduction="sum")
        return total / (maps >= 0).sum().clamp(min=1)

    def outcomes(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """Each class's intersection, union and labelled pixels: [B, 3 * K]. torchmetrics would store K maps."""
        values, valid = self.values(predicted), maps >= 0
        images = torch.arange(len(maps), device=maps.device).view(-1, 1, 1).expand_as(maps)
        intersection = self._count(images, maps, valid & (values == maps))
        predicted_pixels, pixels = self._count(images, values, valid), self._count(images, maps, valid)
        return torch.cat([intersection, predicted_pixels + pixels - intersection, pixels], dim=1).cpu().double()

    def results(self, outcomes: Tensor) -> dict[str, MetricValue]:
        intersection, _, pixels = outcomes.view(len(outcomes), 3, -1).unbind(dim=1)
        miou = MetricValue(self.miou(outcomes.sum(dim=0, keepdim=True)).item(), outcomes, self.miou)
        return {"segmentation_miou": miou, "segmentation_accuracy": _mean(intersection.sum(dim=1), pixels.sum(dim=1))}

    def selection_score(self, results: dict[str, MetricValue]) -> float:
        miou = results["segmentation_miou"].value
        return miou if math.isfinite(miou) else -math.inf

    @staticmethod
    def iou(sums: Tensor) -> Tensor:
        """Intersection over union [R, K] of sums over images [R, 3 * K]; NaN for a class that occurs in no map."""
        intersection, union, pixels = sums.view(len(sums), 3, -1).unbind(dim=1)
        return torch.where(pixels > 0, intersection / union, torch.nan)

    @classmethod
    def miou(cls, sums: Tensor) -> Tensor:
        """Mean `iou` [R] over the classes that occur."""
        return cls.iou(sums).nanmean(dim=1)

    def _count(self, images: Tensor, classes: Tensor, mask: Tensor) -> Tensor:
        bins = (images * self.outputs + classes)[mask]
        return bins.bincount(minlength=len(images) * self.outputs).view(len(images), self.outputs)


def _known(depths: Tensor) -> Tensor:
    return depths.isfinite() & (depths > 0)


def _mean(total: Tensor, count: Tensor) -> MetricValue:
    per_image = torch.stack([total, count], dim=1)
    return MetricValue((total.sum() / count.sum()).item(), per_image)
