"""Measures of features: spread, rank, and agreement of predictions with targets.

All are computed in float64. If features are not finite, measures are NaN.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-4
"""Added to the within-class covariance (LiDAR, section 4)."""


ROUNDING = 1e-12
"""A variance below this fraction of the mean square counts as zero."""


class Spread(NamedTuple):
    """The spread of tokens.

    std: standard deviation over all tokens, per dimension; root mean square over dimensions.
    std_across: the same across images, at each fixed position.
    share: fraction of the total variance that is across images at a fixed position; the rest is due to position.
    norm: mean L2 norm of a token.
    relative: std / the tokens' root mean square: 0 if all tokens are equal, independent of scale.
    """

    std: float
    std_across: float
    share: float
    norm: float
    relative: float


class Moments:
    """Accumulates moments of tokens at fixed positions, batch by batch."""

    def __init__(self) -> None:
        self.images = 0
        self.lengths = 0.0
        self._sum = self._squares = torch.zeros(())

    def add(self, tokens: Tensor) -> None:
        """Adds tokens [B, N, D]; N and D must not change."""
        tokens = tokens.double()
        self.images += len(tokens)
        self.lengths += float(tokens.norm(dim=-1).mean(dim=1).sum())
        self._sum = self._sum.to(tokens) + tokens.sum(dim=0)
        self._squares = self._squares.to(tokens) + tokens.square().sum(dim=0)

    def spread(self) -> Spread:
        """The spread of all tokens that were added."""
        mean = self._sum / self.images  # [N, D]
        square = self._squares / self.images
        within = (square - mean.square()).clamp_min(0).mean()
        total = (square.mean(dim=0) - mean.mean(dim=0).square()).clamp_min(0).mean()
        power = square.mean()
        within, total = (torch.where(part > ROUNDING * power, part, 0.0) for part in (within, total))
        return Spread(
            float(total.sqrt()),
            float(within.sqrt()),
            _ratio(float(within), float(total)),
            self.lengths / self.images,
            math.sqrt(_ratio(float(total), float(power))),
        )


class PredictionAgreement:
    """Accumulates the agreement of predictions with targets at fixed positions, batch by batch."""

    def __init__(self) -> None:
        self.images = 0
        self._cosine = 0.0
        self._sums = self._products = torch.zeros(())

    def add(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds predictions and targets [B, N, D]; N and D must not change."""
        predictions, targets = predictions.double(), targets.double()
        self.images += len(targets)
        self._cosine += float(torch.cosine_similarity(predictions, targets, dim=-1).mean(dim=1).sum())
        pair = torch.stack([predictions, targets])  # [2, B, N, D]
        self._sums = self._sums.to(pair) + pair.sum(dim=1)
        products = torch.stack([predictions.square(), targets.square(), predictions * targets]).sum(dim=(1, 2, 3))
        self._products = self._products.to(pair) + products

    def cosine(self) -> float:
        """Mean cosine similarity of predictions and targets; it includes what all images have in common."""
        return self._cosine / self.images

    def correlation(self) -> float:
        """Correlation across images, pooled over dimensions and positions: 0 if predictions ignore the image."""
        first, second = self._sums / self.images
        means = torch.stack([first.square().sum(), second.square().sum(), (first * second).sum()])
        one, other, both = (self._products / self.images - means).tolist()
        return _ratio(both, math.sqrt(max(one, 0.0) * max(other, 0.0)))


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., 2210.02885, eq. 1-2) of features [n, D], not centred; at most min(n, D)."""
    if not features.isfinite().all():
        return math.nan
    return _effective(torch.linalg.svdvals(features.double()))


def effective_rank(features: Tensor) -> float:
    """RankMe of centred features [n, D]: the number of dimensions in which images differ."""
    features = features.double()
    return rankme(features - features.mean(dim=0))


def alpha_req(features: Tensor) -> float:
    """Decay exponent of the covariance's eigenvalues, lambda_j ~ j^-alpha (Agrawal et al., 2022), features [n, D].

    It is the slope of a line fitted to log lambda over log j. The paper finds 1 best; larger values are a steeper
    decay. Eigenvalues at rounding level are left out.
    """
    if not features.isfinite().all():
        return math.nan
    features = features.double()
    values = torch.linalg.svdvals(features - features.mean(dim=0)).square()
    values = values[values > values.max() * 1e-12]
    if len(values) < 3:
        return math.nan
    places = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device).log()
    places = places - places.mean()
    return float(-(places @ values.log()) / places.square().sum())


def lidar(features: Tensor) -> float:
    """LiDAR (Thilak et al., 2312.04000, section 4) of features [n, q, D]: q crops of each of n images.

    The effective rank of the linear discriminant analysis matrix, with images as classes: at most min(n - 1, D). The
    paper uses 1,000 images and 50 crops; with fewer, compare values only for the same n and q.
    """
    if not features.isfinite().all():
        return math.nan
    features = features.double()
    images, crops, width = features.shape
    means = features.mean(dim=1)
    inner = (features - means[:, None]).flatten(0, 1)
    within = inner.T @ inner / (images * (crops - 1)) + RIDGE * torch.eye(width).to(inner)
    outer = means - means.mean(dim=0)
    # The eigenvalues of Sw^-1/2 Sb Sw^-1/2 are the squared singular values of the means, whitened by any root of Sw.
    root, failed = torch.linalg.cholesky_ex(within)
    if failed:  # of features so large that the ridge is nothing beside them
        return math.nan
    whitened = torch.linalg.solve_triangular(root, outer.T, upper=False)
    return _effective(torch.linalg.svdvals(whitened).square())


def _effective(values: Tensor) -> float:
    """The exponential of the entropy of ``values``, normalised to sum 1."""
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float((-(shares * shares.log()).sum()).exp()) if len(shares) else math.nan


def _ratio(part: float, whole: float) -> float:
    if math.isnan(part) or math.isnan(whole):
        return math.nan
    return part / whole if whole > 0 else 0.0
