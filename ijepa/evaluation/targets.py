"""What a dense probe predicts for every pixel: the loss of a prediction, and how good it is."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa.evaluation.measures import Measured

RATIO = 1.25
"""A depth counts as right within this factor (Eigen et al., 1406.2283)."""
BALANCE = 0.5
"""Of the scale-invariant loss: 0 is the mean square, at 1 a factor common to an image's depths costs nothing."""


class Target(ABC):
    """A kind of map.

    Attributes:
        kind: its name.
        outputs: numbers K predicted for a pixel.
    """

    kind: str
    outputs: int

    @abstractmethod
    def start(self, maps: Tensor) -> Tensor:
        """Where predictions begin: [K], from some maps [B, H, W]."""

    @abstractmethod
    def loss(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """Of predictions [B, K, H, W]; 0 where no pixel is known."""

    @abstractmethod
    def values(self, predicted: Tensor) -> Tensor:
        """Predictions as maps: [B, H, W]."""

    @abstractmethod
    def outcomes(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """What each image contributes to the results: [B, S] float64 on the CPU, to be added up."""

    @abstractmethod
    def results(self, outcomes: Tensor) -> dict[str, Measured]:
        """By metric, of the outcomes of all images [n, S]."""

    @abstractmethod
    def merit(self, results: dict[str, Measured]) -> float:
        """What chooses among heads, by their results on held-out images: the better the higher."""


class Depths(Target):
    """The logarithm of depth, in the scale-invariant loss of Eigen et al. (1406.2283, equation 4, lambda = .5).

    Errors are ratios, near as far, as delta_1 counts them; squares make it a convex problem of linear heads.
    RMSE, in the maps' units, and delta_1, the share of pixels within a factor of 1.25, are those of an image over its
    known pixels, averaged over images, as usual.
    """

    kind = "depth"
    outputs = 1

    def start(self, maps: Tensor) -> Tensor:
        known = maps[_known(maps)]
        return known.log().mean().view(1) if len(known) else maps.new_zeros(1)

    def loss(self, predicted: Tensor, maps: Tensor) -> Tensor:
        known = _known(maps)
        away = torch.where(known, predicted[:, 0] - torch.where(known, maps, 1).log(), 0)
        count = known.sum(dim=(1, 2)).clamp(min=1)
        each = away.square().sum(dim=(1, 2)) / count - BALANCE * (away.sum(dim=(1, 2)) / count).square()
        return each.sum() / known.any(dim=(1, 2)).sum().clamp(min=1)

    def values(self, predicted: Tensor) -> Tensor:
        return predicted[:, 0].exp()

    def outcomes(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """delta_1, RMSE, and 1; zeros for an image of which no pixel is known."""
        known, values = _known(maps), self.values(predicted)
        truth = torch.where(known, maps, 1)
        count = known.sum(dim=(1, 2)).clamp(min=1)
        close = known & (torch.maximum(values / truth, truth / values) < RATIO)
        squares = torch.where(known, (values - truth).square(), 0).sum(dim=(1, 2))
        rows = [close.sum(dim=(1, 2)) / count, (squares / count).sqrt(), known.any(dim=(1, 2))]
        return torch.stack([row.float() for row in rows], dim=1).cpu().double()

    def results(self, outcomes: Tensor) -> dict[str, Measured]:
        delta, error, count = outcomes.unbind(dim=1)
        return {
            "depth_delta1": _mean(delta, count),
            "depth_rmse": _mean(error, count),
        }

    def merit(self, results: dict[str, Measured]) -> float:
        """By RMSE: delta_1 can be full before a probe is good."""
        error = results["depth_rmse"].value
        return -error if math.isfinite(error) else -math.inf


class Classes(Target):
    """One of so many classes, in cross-entropy.

    mIoU is the mean over the classes that occur in the maps of their intersection over union, both added up over all
    images; accuracy is the share of all pixels; those without a class do not count.
    """

    kind = "segmentation"

    def __init__(self, classes: int) -> None:
        self.outputs = classes

    def start(self, maps: Tensor) -> Tensor:
        return torch.zeros(self.outputs, device=maps.device)

    def loss(self, predicted: Tensor, maps: Tensor) -> Tensor:
        total = F.cross_entropy(predicted, maps, ignore_index=-1, reduction="sum")
        return total / (maps >= 0).sum().clamp(min=1)

    def values(self, predicted: Tensor) -> Tensor:
        return predicted.argmax(dim=1)

    def outcomes(self, predicted: Tensor, maps: Tensor) -> Tensor:
        """Each class's intersection, union and pixels: [B, 3 * K]. Counted here: torchmetrics would hold K maps."""
        values, counted = self.values(predicted), maps >= 0
        images = torch.arange(len(maps), device=maps.device).view(-1, 1, 1).expand_as(maps)
        shared = self._count(images, maps, counted & (values == maps))
        guessed, there = self._count(images, values, counted), self._count(images, maps, counted)
        return torch.cat([shared, guessed + there - shared, there], dim=1).cpu().double()

    def results(self, outcomes: Tensor) -> dict[str, Measured]:
        shared, _, there = outcomes.view(len(outcomes), 3, -1).unbind(dim=1)
        miou = Measured(self.miou(outcomes.sum(dim=0, keepdim=True)).item(), outcomes, self.miou)
        return {"segmentation_miou": miou, "segmentation_accuracy": _mean(shared.sum(dim=1), there.sum(dim=1))}

    def merit(self, results: dict[str, Measured]) -> float:
        miou = results["segmentation_miou"].value
        return miou if math.isfinite(miou) else -math.inf

    @staticmethod
    def iou(sums: Tensor) -> Tensor:
        """Intersection over union [R, K] of sums over images [R, 3 * K]; NaN for a class that occurs in no map."""
        shared, union, there = sums.view(len(sums), 3, -1).unbind(dim=1)
        return torch.where(there > 0, shared / union, torch.nan)

    @classmethod
    def miou(cls, sums: Tensor) -> Tensor:
        """Their means [R]."""
        return cls.iou(sums).nanmean(dim=1)

    def _count(self, images: Tensor, classes: Tensor, which: Tensor) -> Tensor:
        found = (images * self.outputs + classes)[which]
        return found.bincount(minlength=len(images) * self.outputs).view(len(images), self.outputs)


def _known(depths: Tensor) -> Tensor:
    return depths.isfinite() & (depths > 0)


def _mean(total: Tensor, count: Tensor) -> Measured:
    each = torch.stack([total, count], dim=1)
    return Measured((total.sum() / count.sum()).item(), each)
