"""Terms of an objective: distances between predictions and targets, and regularisers of features.

A term is an `nn.Module` from `Outputs` to a scalar; it may hold parameters or buffers, which are trained and saved with
the networks. To add one: docs/extending.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        running: running averages for `covariance`, by name of the features; without, the batch's own statistics.
    """

    predictions: Tensor
    targets: Tensor
    context: Tensor
    positions: Tensor
    valid: Tensor | None = None
    num_patches: int = 1
    all_reduce: Callable[[Tensor], Tensor] = _single_process
    running: Mapping[str, "RunningCovariance"] = field(default_factory=dict)
    _covariances: dict[str, Tensor] = field(default_factory=dict)

    def covariance(self, features: Regularized) -> Tensor:
        """The covariance [D, D] of features over the batch of all processes; computed once for all terms.

        With `running`, its value is that of the steps before, and its gradient is that of this micro-batch's features.

        Args:
            features: ``context`` or ``predictions``, averaged over patches; or ``tokens``: the context's tokens, each
                minus the mean at its position, so that features that depend only on the position count as collapsed.
        """
        if features not in self._covariances:
            self._covariances[features] = self._covariance(features)
        return self._covariances[features]

    def _covariance(self, features: Regularized) -> Tensor:
        if features == "tokens":
            valid = torch.ones_like(self.positions, dtype=torch.bool) if self.valid is None else self.valid
            rows, groups, count = self.context[valid], self.positions[valid], self.num_patches
        else:
            rows, count = self.pooled(features), 1
            groups = self.positions.new_zeros(len(rows))
        if features in self.running:
            result: Tensor = self.running[features](rows, groups)
            return result
        return within_group_covariance(rows, groups, count, self.all_reduce)

    def pooled(self, features: Literal["context", "predictions"]) -> Tensor:
        """Features averaged over the patches of each image, without padding: [B, D]."""
        if features == "predictions":
            return self.predictions.mean(dim=(1, 2))
        if self.valid is None:
            return self.context.mean(dim=1)
        return (self.context * (self.valid / self.valid.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)


class RunningCovariance(nn.Module):
    """The covariance within groups as a running average over steps, for regularisers of small or divided batches.

    A batch's own covariance needs the whole batch at once. This one depends neither on gradient accumulation nor on the
    number of devices, if all micro-batches have the same number of features. Before the first `update` it is the
    identity, with which neither regulariser has a gradient.

    Args:
        groups: number of groups; see `within_group_covariance`.
        width: D.
        decay: of the averages; they start as plain averages.
    """

    mean: Tensor
    covariance: Tensor
    steps: Tensor
    counts: Tensor
    sums: Tensor
    products: Tensor

    def __init__(self, groups: int, width: int, decay: float = 0.9) -> None:
        super().__init__()
        self.groups = groups
        self.decay = decay
        self.register_buffer("mean", torch.zeros(groups, width))
        self.register_buffer("covariance", torch.eye(width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("counts", torch.zeros(groups, 1), persistent=False)
        self.register_buffer("sums", torch.zeros(groups, width), persistent=False)
        self.register_buffer("products", torch.zeros(width, width), persistent=False)

    def forward(self, features: Tensor, groups: Tensor) -> Tensor:
        """The running covariance [D, D], with the gradient of the covariance of ``features`` [n, D] around its mean.

        The features count in the next `update`.
        """
        membership = F.one_hot(groups, self.groups).to(features.dtype)
        centred = features - membership @ self.mean
        products = centred.T @ centred
        with torch.no_grad():
            self.counts += membership.sum(dim=0)[:, None]
            self.sums += membership.T @ centred
            self.products += products
        now = products / max(len(features), 1)
        return self.covariance + (now - now.detach())

    @torch.no_grad()
    def update(self, all_reduce: Callable[[Tensor], Tensor] = _single_process) -> None:
        """Takes in the features of one step; ``all_reduce`` sums a tensor over all processes."""
        counts, sums, products = (all_reduce(part.clone()) for part in (self.counts, self.sums, self.products))
        offsets = sums / counts.clamp(min=1)  # of the batch's means from the running ones
        degrees_of_freedom = (counts.sum() - (counts > 0).sum()).clamp(min=1)
        covariance = (products - offsets.T @ (counts * offsets)) / degrees_of_freedom
        self.steps += 1
        rate = torch.clamp(1 / self.steps, min=1 - self.decay)
        self.mean.add_(rate * offsets)
        self.covariance.lerp_(covariance, rate)
        for part in (self.counts, self.sums, self.products):
            part.zero_()


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
        groups: [n], the group of each feature, in [0, count).
        count: number of groups; some may be empty.
        all_reduce: see `Outputs`; only sums pass through it, [count, D + 1] and [D, D].

    Returns:
        [D, D].
    """
    membership = F.one_hot(groups, count).to(features.dtype)  # sums as matrix products: deterministic on GPUs, too
    sums = all_reduce(membership.T @ torch.cat([features, features.new_ones(len(features), 1)], dim=1))
    sizes = sums[:, -1:].detach()
    centred = features - membership @ (sums[:, :-1] / sizes.clamp(min=1))
    degrees_of_freedom = sizes.sum() - (sizes > 0).sum()
    return all_reduce(centred.T @ centred) / degrees_of_freedom.clamp(min=1)


def variance_term(covariance: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - standard deviation) (VICReg, eq. 1-2), from a covariance [D, D]."""
    return F.relu(1.0 - torch.sqrt(covariance.diagonal() + 1e-4)).mean()


def covariance_term(covariance: Tensor) -> Tensor:
    """Sum of squared off-diagonal covariances, divided by D (VICReg, eq. 3-4), from a covariance [D, D]."""
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / len(covariance)
