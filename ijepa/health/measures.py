"""Measures of features: how far they spread, over how many dimensions, and what predictions know of their targets.

All in float64, whatever the features' own type. What cannot be computed, of infinite or missing values, is NaN.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-4
"""Added to the within-class covariance (LiDAR, section 4)."""


ROUNDING = 1e-12
"""A variance that is no greater share of the mean square is none."""


class Spread(NamedTuple):
    """How far tokens lie apart.

    std: over all tokens, of each dimension, the root of their mean square.
    std_across: the same across images at each fixed place.
    share: of the variance over all tokens, what is left at a fixed place; the rest is where a token is.
    norm: mean length of a token.
    relative: std over the tokens' root mean square: 0 where all are the same, whatever their length.
    """

    std: float
    std_across: float
    share: float
    norm: float
    relative: float


class Moments:
    """Sums over images of tokens at fixed places, batch after batch."""

    def __init__(self) -> None:
        self.images = 0
        self.lengths = 0.0
        self._sum = self._squares = torch.zeros(())

    def add(self, tokens: Tensor) -> None:
        """Takes in tokens [B, N, D]; N and D stay the same."""
        tokens = tokens.double()
        self.images += len(tokens)
        self.lengths += float(tokens.norm(dim=-1).mean(dim=1).sum())
        self._sum = self._sum.to(tokens) + tokens.sum(dim=0)
        self._squares = self._squares.to(tokens) + tokens.square().sum(dim=0)

    def spread(self) -> Spread:
        """Of all that was added."""
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
    """What predictions know of their targets, batch after batch of tokens at fixed places."""

    def __init__(self) -> None:
        self.images = 0
        self._cosine = 0.0
        self._sums = self._products = torch.zeros(())

    def add(self, predictions: Tensor, targets: Tensor) -> None:
        """Takes in predictions and targets, [B, N, D]; N and D stay the same."""
        predictions, targets = predictions.double(), targets.double()
        self.images += len(targets)
        self._cosine += float(torch.cosine_similarity(predictions, targets, dim=-1).mean(dim=1).sum())
        pair = torch.stack([predictions, targets])  # [2, B, N, D]
        self._sums = self._sums.to(pair) + pair.sum(dim=1)
        products = torch.stack([predictions.square(), targets.square(), predictions * targets]).sum(dim=(1, 2, 3))
        self._products = self._products.to(pair) + products

    def cosine(self) -> float:
        """The mean cosine of a prediction and its target; what both have at any image counts, too."""
        return self._cosine / self.images

    def correlation(self) -> float:
        """The correlation of both across images, all dimensions and places together: 0 knows nothing of the image."""
        first, second = self._sums / self.images
        means = torch.stack([first.square().sum(), second.square().sum(), (first * second).sum()])
        one, other, both = (self._products / self.images - means).tolist()
        return _ratio(both, math.sqrt(max(one, 0.0) * max(other, 0.0)))


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., 2210.02885, eq. 1-2) of features [n, D], not centred: at most the smaller of n and D."""
    if not features.isfinite().all():
        return math.nan
    return _effective(torch.linalg.svdvals(features.double()))


def effective_rank(features: Tensor) -> float:
    """The same of features less their mean: dimensions in which images differ, whatever they have in common."""
    features = features.double()
    return rankme(features - features.mean(dim=0))


def alpha_req(features: Tensor) -> float:
    """The decay of the covariance's eigenvalues, lambda_j ~ j^-alpha (Agrawal et al., 2022), of features [n, D].

    The slope of a straight line through log lambda over log j; 1 is what they find best, more is steeper. Eigenvalues
    that are nothing but rounding are left out.
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

    The effective rank of what tells images apart where their own crops agree: at most n - 1 and D. The paper takes
    1,000 images and 50 crops; of few, compare it with itself alone.
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
