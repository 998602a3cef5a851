"""The parts that an objective can have: distances between predictions and targets, and regularisers of features.

A term is an `nn.Module` from `Outputs` to a scalar; it may hold parameters or buffers, which are trained and saved with
the networks. docs/extending.md adds one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distance = Literal["l2", "smooth_l1", "l1"]
Regularized = Literal["tokens", "context", "predictions"]


def _alone(sums: Tensor) -> Tensor:
    return sums


@dataclass
class Outputs:
    """What the networks made of a batch, in float32.

    Attributes:
        predictions: [B, T, K, D].
        targets: [B, T, K, D], no gradient.
        context: [B, C, D], the context encoder's output.
        positions: [B, C], which patches these are, in row order.
        valid: [B, C], False where a context patch is padding; None where none is.
        num_patches: N of an image; positions are below it.
        all_reduce: from this process's sums to those over all processes, with gradients.
    """

    predictions: Tensor
    targets: Tensor
    context: Tensor
    positions: Tensor
    valid: Tensor | None = None
    num_patches: int = 1
    all_reduce: Callable[[Tensor], Tensor] = _alone
    _covariances: dict[str, Tensor] = field(default_factory=dict)

    def covariance(self, features: Regularized) -> Tensor:
        """The covariance [D, D] of features over the global batch, computed once for all terms.

        Args:
            features: average-pooled ``context`` or ``predictions``; or each of the context's ``tokens`` less the mean
                at its position, so that features that hold nothing but their position count as collapsed.
        """
        if features not in self._covariances:
            self._covariances[features] = self._covariance(features)
        return self._covariances[features]

    def _covariance(self, features: Regularized) -> Tensor:
        if features == "tokens":
            kept = torch.ones_like(self.positions, dtype=torch.bool) if self.valid is None else self.valid
            return covariance_within(self.context[kept], self.positions[kept], self.num_patches, self.all_reduce)
        pooled = self.pooled(features)
        return covariance_within(pooled, self.positions.new_zeros(len(pooled)), 1, self.all_reduce)

    def pooled(self, features: Literal["context", "predictions"]) -> Tensor:
        """Features averaged over an image's patches, padding left out: [B, D]."""
        if features == "predictions":
            return self.predictions.mean(dim=(1, 2))
        if self.valid is None:
            return self.context.mean(dim=1)
        return (self.context * (self.valid / self.valid.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)


class Term(nn.Module):
    """A part of the objective; subclass it, or bring any `nn.Module` with the same ``forward``.

    Attributes:
        needs_whole_batch: whether it compares images of the batch with each other: no gradient accumulation then.
    """

    needs_whole_batch = False

    def forward(self, outputs: Outputs) -> Tensor:
        """A scalar."""
        raise NotImplementedError


class L2(Term):
    """The paper's squared L2 (section 3), averaged over patches and dimensions instead of summed over dimensions."""

    def forward(self, outputs: Outputs) -> Tensor:
        return F.mse_loss(outputs.predictions, outputs.targets)


class SmoothL1(Term):
    """What the reference implementation trains; beta = 1."""

    def forward(self, outputs: Outputs) -> Tensor:
        return F.smooth_l1_loss(outputs.predictions, outputs.targets)


class L1(Term):
    """V-JEPA 2's (2506.09985)."""

    def forward(self, outputs: Outputs) -> Tensor:
        return F.l1_loss(outputs.predictions, outputs.targets)


DISTANCES: dict[Distance, type[Term]] = {"l2": L2, "smooth_l1": SmoothL1, "l1": L1}


class Variance(Term):
    """Keeps each dimension's standard deviation above 1 (VICReg, 2105.04906, eq. 1-2)."""

    needs_whole_batch = True

    def __init__(self, features: Regularized = "context") -> None:
        super().__init__()
        self.features: Regularized = features

    def forward(self, outputs: Outputs) -> Tensor:
        return variance_term(outputs.covariance(self.features))


class Covariance(Term):
    """Penalises correlations between dimensions (VICReg, eq. 3-4)."""

    needs_whole_batch = True

    def __init__(self, features: Regularized = "context") -> None:
        super().__init__()
        self.features: Regularized = features

    def forward(self, outputs: Outputs) -> Tensor:
        return covariance_term(outputs.covariance(self.features))


def covariance_within(
    features: Tensor, groups: Tensor, count: int, all_reduce: Callable[[Tensor], Tensor] = _alone
) -> Tensor:
    """The unbiased within-group covariance; with one group, the covariance.

    Args:
        features: [n, D].
        groups: [n] in [0, count).
        count: number of groups; some may be empty.
        all_reduce: see `Outputs`; only sums pass through it, [count, D + 1] and [D, D].

    Returns:
        [D, D].
    """
    member = F.one_hot(groups, count).to(features.dtype)  # sums as products are the same each time, on GPUs, too
    sums = all_reduce(member.T @ torch.cat([features, features.new_ones(len(features), 1)], dim=1))
    sizes = sums[:, -1:].detach()
    centred = features - member @ (sums[:, :-1] / sizes.clamp(min=1))
    freedom = sizes.sum() - (sizes > 0).sum()
    return all_reduce(centred.T @ centred) / freedom.clamp(min=1)


def variance_term(covariance: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - standard deviation) (VICReg, eq. 1-2), from [D, D]."""
    return F.relu(1.0 - torch.sqrt(covariance.diagonal() + 1e-4)).mean()


def covariance_term(covariance: Tensor) -> Tensor:
    """Sum of squared off-diagonal covariances, divided by D (VICReg, eq. 3-4), from [D, D]."""
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / len(covariance)
