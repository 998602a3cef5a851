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
    """Scalars: the loss (total) and its terms."""

    total: Tensor
    distance: Tensor
    variance: Tensor | None
    covariance: Tensor | None


Regularized = Literal["tokens", "context", "predictions"]


class Objective:
    """Distance in latent space, plus weighted variance and covariance regularisers.

    Args:
        distance: squared L2 (paper), smooth L1 (reference implementation) or L1.
        variance_weight: weight of the hinge that keeps each dimension's standard deviation above 1.
        covariance_weight: weight of the penalty on correlations between dimensions.
        regularize: what the two regularisers act on: average-pooled ``context`` features or ``predictions``; or the
            context ``tokens``, with variance over the batch at each patch position, so that tokens that encode only
            their position count as collapsed.
        patches: number of patches per image.
        total: sums a tensor over all processes, with gradients; None: a single process.
    """

    def __init__(
        self,
        distance: Distance,
        variance_weight: float = 0.0,
        covariance_weight: float = 0.0,
        regularize: Regularized = "context",
        patches: int = 1,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.distance = DISTANCES[distance]
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.regularize = regularize
        self.patches = patches
        self.total = total

    def __call__(
        self, predictions: Tensor, targets: Tensor, context: Tensor, places: Tensor, valid: Tensor | None = None
    ) -> Loss:
        """The loss in float32.

        Args:
            predictions: [B, T, K, D].
            targets: [B, T, K, D].
            context: [B, C, D], the context encoder's output.
            places: [B, C], patch indices of the context.
            valid: [B, C], False where a context patch is padding.
        """
        distance = self.distance(predictions.float(), targets.float())
        if not (self.variance_weight or self.covariance_weight):
            return Loss(distance, distance, None, None)
        with torch.autocast(distance.device.type, enabled=False):
            covariance = self._covariance(predictions.float(), context.float(), places, valid)
            spread, correlation = variance_term(covariance), covariance_term(covariance)
        total = distance + self.variance_weight * spread + self.covariance_weight * correlation
        return Loss(total, distance, spread, correlation)

    def _covariance(self, predictions: Tensor, context: Tensor, places: Tensor, valid: Tensor | None) -> Tensor:
        """The covariance [D, D] of the regularised features."""
        if self.regularize == "tokens":
            kept = torch.ones_like(places, dtype=torch.bool) if valid is None else valid
            return covariance_within(context[kept], places[kept], self.patches, self.total)
        if self.regularize == "predictions":
            pooled = predictions.mean(dim=(1, 2))  # [B, D]
        elif valid is None:
            pooled = context.mean(dim=1)
        else:
            pooled = (context * (valid / valid.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)
        return covariance_within(pooled, places.new_zeros(len(pooled)), 1, self.total)


def covariance_within(
    features: Tensor, groups: Tensor, count: int, total: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The unbiased within-group covariance; with one group, the covariance.

    Args:
        features: [n, D].
        groups: [n] in [0, count).
        count: number of groups; some may be empty.
        total: see `Objective`; it only sees sums, [count, D + 1] and [D, D].

    Returns:
        [D, D].
    """
    total = total or (lambda sums: sums)
    member = F.one_hot(groups, count).to(features.dtype)  # sums as products are the same each time, on GPUs, too
    sums = total(member.T @ torch.cat([features, features.new_ones(len(features), 1)], dim=1))
    sizes = sums[:, -1:].detach()
    centred = features - member @ (sums[:, :-1] / sizes.clamp(min=1))
    freedom = sizes.sum() - (sizes > 0).sum()
    return total(centred.T @ centred) / freedom.clamp(min=1)


def variance_term(covariance: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - standard deviation) (VICReg, 2105.04906, eq. 1-2), from [D, D]."""
    return F.relu(1.0 - torch.sqrt(covariance.diagonal() + 1e-4)).mean()


def covariance_term(covariance: Tensor) -> Tensor:
    """Sum of squared off-diagonal covariances, divided by D (VICReg, eq. 3-4), from [D, D]."""
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / len(covariance)
