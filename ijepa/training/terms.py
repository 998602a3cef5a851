"""Terms of an objective: distances between predictions and targets, and regularisers of features.

A term is an `nn.Module` from `Outputs` to a scalar; it may hold parameters or buffers, which are trained and saved with
the networks. To add one: docs/extending.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distance = Literal["l2", "smooth_l1", "l1"]
Regularized = Literal["tokens", "context", "predictions"]


def _single_process(sums: Tensor) -> Tensor:
    return sums


@dataclass
class Outputs:
    """The networks' outputs for a micro-batch, in float32.

    Attributes:
        predictions: [B, T, K, D].
        targets: [B, T, K, D], without gradient.
        context: [B, C, D], the context encoder's output.
        positions: [B, C], index of each context patch in 0..N-1, row by row.
        valid: [B, C], False where a context patch is padding; None: no padding.
        num_patches: N, patches of an image.
        all_reduce: sums a tensor over all processes, with gradients.
        pixels: predicted and true pixel values [B, T, K, P], where they are targets beside features.
    """

    predictions: Tensor
    targets: Tensor
    context: Tensor
    positions: Tensor
    valid: Tensor | None = None
    num_patches: int = 1
    all_reduce: Callable[[Tensor], Tensor] = _single_process
    pixels: tuple[Tensor, Tensor] | None = None
    _covariances: dict[str, Tensor] = field(default_factory=dict)

    def covariance(self, features: Regularized) -> Tensor:
        """The covariance [D, D] of features over the micro-batch of all processes; computed once for all terms.

        Args:
            features: ``context`` or ``predictions``, averaged over patches; or ``tokens``: the context's tokens, each
                minus the mean at its position, so that features that depend only on the position count as collapsed.
        """
        if features not in self._covariances:
            self._covariances[features] = self._covariance(features)
        return self._covariances[features]

    def _covariance(self, features: Regularized) -> Tensor:
        if features == "tokens":
            # not by a boolean index, for whose size a GPU would be waited for
            positions = self.positions if self.valid is None else self.positions.where(self.valid, self.num_patches)
            tokens = self.context.flatten(0, 1)
            return within_group_covariance(tokens, positions.flatten(), self.num_patches, self.all_reduce)
        pooled = self.pooled(features)
        return within_group_covariance(pooled, self.positions.new_zeros(len(pooled)), 1, self.all_reduce)

    def pooled(self, features: Literal["context", "predictions"]) -> Tensor:
        """Features averaged over the patches of each image, without padding: [B, D]."""
        if features == "predictions":
            return self.predictions.mean(dim=(1, 2))
        if self.valid is None:
            return self.context.mean(dim=1)
        return (self.context * (self.valid / self.valid.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)


class Term(nn.Module):
    """A term of the objective; subclass it, or use any `nn.Module` with the same ``forward``.

    Attributes:
        needs_whole_batch: whether it compares images of the batch with each other: no gradient accumulation then.
    """

    needs_whole_batch = False

    def forward(self, outputs: Outputs) -> Tensor:
        """The term's value: a scalar tensor."""
        raise NotImplementedError


class L2(Term):
    """Squared L2 distance (paper, section 3), but averaged over dimensions, not summed."""

    def forward(self, outputs: Outputs) -> Tensor:
        return F.mse_loss(outputs.predictions, outputs.targets)


class SmoothL1(Term):
    """Smooth L1 with beta = 1, the loss of the reference implementation."""

    def forward(self, outputs: Outputs) -> Tensor:
        return F.smooth_l1_loss(outputs.predictions, outputs.targets)


class L1(Term):
    """L1, the loss of V-JEPA 2 (2506.09985)."""

    def forward(self, outputs: Outputs) -> Tensor:
        return F.l1_loss(outputs.predictions, outputs.targets)


DISTANCES: dict[Distance, type[Term]] = {"l2": L2, "smooth_l1": SmoothL1, "l1": L1}


class Pixels(Term):
    """Distance of the predicted to the true pixels, where both features and pixels are predicted."""

    def __init__(self, distance: Distance) -> None:
        super().__init__()
        self.distance = DISTANCES[distance]()

    def forward(self, outputs: Outputs) -> Tensor:
        assert outputs.pixels is not None
        predictions, targets = outputs.pixels
        found: Tensor = self.distance(replace(outputs, predictions=predictions, targets=targets))
        return found


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


def within_group_covariance(
    features: Tensor, groups: Tensor, count: int, all_reduce: Callable[[Tensor], Tensor] = _single_process
) -> Tensor:
    """The unbiased covariance within groups: of features minus the mean of their group.

    Args:
        features: [n, D].
        groups: [n], the group of each feature, in [0, count); count: the feature is left out.
        count: number of groups; some may be empty.
        all_reduce: see `Outputs`; only sums pass through it, [count, D + 1] and [D, D].

    Returns:
        [D, D].
    """
    # sums as matrix products, which are deterministic on GPUs, too; F.one_hot would read the largest group
    membership = (groups[:, None] == torch.arange(count, device=groups.device)).to(features.dtype)
    sums = all_reduce(membership.T @ torch.cat([features, features.new_ones(len(features), 1)], dim=1))
    sizes = sums[:, -1:].detach()
    centred = (features - membership @ (sums[:, :-1] / sizes.clamp(min=1))) * membership.sum(dim=1, keepdim=True)
    degrees_of_freedom = sizes.sum() - (sizes > 0).sum()
    return all_reduce(centred.T @ centred) / degrees_of_freedom.clamp(min=1)


def variance_term(covariance: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - standard deviation) (VICReg, eq. 1-2), from a covariance [D, D]."""
    return F.relu(1.0 - torch.sqrt(covariance.diagonal() + 1e-4)).mean()


def covariance_term(covariance: Tensor) -> Tensor:
    """Sum of squared off-diagonal covariances, divided by D (VICReg, eq. 3-4), from a covariance [D, D]."""
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / len(covariance)
