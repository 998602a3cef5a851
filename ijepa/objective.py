"""The objective: the distance between predictions and targets, and optional regularisers (paper, section 3)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Literal["l2", "smooth_l1", "l1"]
DISTANCES: dict[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": F.mse_loss,  # the paper's squared L2, averaged over patches and dimensions instead of summed over dimensions
    "smooth_l1": F.smooth_l1_loss,  # what the reference implementation trains, beta = 1
    "l1": F.l1_loss,  # V-JEPA 2
}


class Loss(NamedTuple):
    """Scalars: what is minimised (total) and its parts."""

    total: Tensor
    distance: Tensor
    variance: Tensor | None
    covariance: Tensor | None


class Objective:
    """Distance in latent space, plus variance and covariance terms on average-pooled features when weighted.

    Args:
        distance: squared L2 (paper), smooth L1 (reference implementation) or L1.
        variance_weight: weight of the hinge that keeps each dimension's standard deviation above 1.
        covariance_weight: weight of the penalty on correlations between dimensions.
        regularize: which features the two terms act on: ``context`` or ``predictions``.
        gather: from this process's features [B, D] to those of the whole batch, with gradients; None: they are all.
    """

    def __init__(
        self,
        distance: Distance,
        variance_weight: float = 0.0,
        covariance_weight: float = 0.0,
        regularize: Literal["context", "predictions"] = "context",
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.distance = DISTANCES[distance]
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.regularize = regularize
        self.gather = gather

    def __call__(self, predictions: Tensor, targets: Tensor, context: Tensor, valid: Tensor | None = None) -> Loss:
        """The loss in float32.

        Args:
            predictions: [B, T, K, D].
            targets: [B, T, K, D].
            context: [B, C, D], the context encoder's output.
            valid: [B, C], False where a context patch is padding.
        """
        distance = self.distance(predictions.float(), targets.float())
        if not (self.variance_weight or self.covariance_weight):
            return Loss(distance, distance, None, None)
        if self.regularize == "predictions":
            pooled = predictions.float().mean(dim=(1, 2))  # [B, D]
        elif valid is None:
            pooled = context.float().mean(dim=1)  # [B, D]
        else:
            weights = valid / valid.sum(dim=1, keepdim=True)
            pooled = (context.float() * weights[:, :, None]).sum(dim=1)  # [B, D]
        if self.gather is not None:
            pooled = self.gather(pooled)
        variance, covariance = variance_term(pooled), covariance_term(pooled)
        total = distance + self.variance_weight * variance + self.covariance_weight * covariance
        return Loss(total, distance, variance, covariance)


def variance_term(features: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - standard deviation over the batch) (VICReg, 2105.04906, eq. 1-2); [B, D]."""
    return F.relu(1.0 - torch.sqrt(features.var(dim=0) + 1e-4)).mean()


def covariance_term(features: Tensor) -> Tensor:
    """Sum of squared off-diagonal covariances over the batch, divided by D (VICReg, eq. 3-4); [B, D]."""
    centred = features - features.mean(dim=0)
    covariance = centred.T @ centred / (len(features) - 1)  # [D, D]
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / features.shape[1]


def normalize_targets(targets: Tensor) -> Tensor:
    """Layer norm without affine over the last dimension, eps 1e-5, in float32 (reference implementation)."""
    return F.layer_norm(targets.float(), targets.shape[-1:])


def pixel_targets(images: Tensor, patch_size: int) -> Tensor:
    """Patches of pixels, each normalised by its own mean and variance (the ablation of the paper's table 7).

    Args:
        images: [B, C, H, W].
        patch_size: side P, which divides H and W.

    Returns:
        [B, N, P * P * C], patches in row order, unit variance each.
    """
    patches = F.unfold(images.float(), kernel_size=patch_size, stride=patch_size).transpose(1, 2)
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / torch.sqrt(variance + 1e-6)
