"""Measures of features: spread, rank, and agreement of predictions with targets.

All are computed in float64, and NaN if features are not finite.
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
    std_across: the same over images, at each fixed position.
    share: fraction of the variance that is between images at a fixed position; the rest is between positions.
    norm: mean L2 norm of a token.
    relative: std / root mean square of the tokens: independent of scale, 0 if all tokens are equal.
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
        self._norms = 0.0
        self._sum = self._squares = torch.zeros(())

    def add(self, tokens: Tensor) -> None:
        """Adds tokens [B, N, D]; N and D must not change."""
        tokens = tokens.double()
        self.images += len(tokens)
        self._norms += float(tokens.norm(dim=-1).mean(dim=1).sum())
        self._sum = self._sum.to(tokens) + tokens.sum(dim=0)
        self._squares = self._squares.to(tokens) + tokens.square().sum(dim=0)

    def spread(self) -> Spread:
        """The spread of all tokens added."""
        mean = self._sum / self.images  # [N, D]
        square = self._squares / self.images
        across = (square - mean.square()).clamp_min(0).mean()
        total = (square.mean(dim=0) - mean.mean(dim=0).square()).clamp_min(0).mean()
        power = square.mean()
        across, total = (torch.where(part > ROUNDING * power, part, 0.0) for part in (across, total))
        return Spread(
            float(total.sqrt()),
            float(across.sqrt()),
            _ratio(float(across), float(total)),
            self._norms / self.images,
            math.sqrt(_ratio(float(total), float(power))),
        )


class PredictionAgreement:
    """Accumulates the agreement of predictions with targets at fixed positions, batch by batch.

    Predictions are compared with the targets of their own image, and with the targets at the same position of all other
    images: what agrees with those does not come from the context.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sums = self._products = self._directions = torch.zeros(())

    def add(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds predictions and targets [B, N, D]; N and D must not change."""
        predictions, targets = predictions.double(), targets.double()
        self.images += len(targets)
        pair = torch.stack([predictions, targets])  # [2, B, N, D]
        self._sums = self._sums.to(pair) + pair.sum(dim=1)
        directions = torch.nn.functional.normalize(pair, dim=-1)
        self._directions = self._directions.to(pair) + directions.sum(dim=1)
        products = [predictions.square(), targets.square(), predictions * targets, directions[0] * directions[1]]
        self._products = self._products.to(pair) + torch.stack(products).sum(dim=(1, 2, 3))

    def cosine(self) -> float:
        """Mean cosine similarity of predictions and targets; it includes what all images share."""
        return float(self._products[3]) / (self.images * self._sums.shape[1])

    def cosine_gap(self) -> float:
        """`cosine` minus that of predictions and the targets of other images; NaN with fewer than two images."""
        own = float(self._products[3])
        return (own / self.images - self._other_mean(own, self._directions)) / self._sums.shape[1]

    def context_gain(self) -> float:
        """1 - loss / loss with the context of another image, the loss being squared L2; NaN with fewer than two images.

        0: the context is not used, or is of no use; 1: all comes from the context.
        """
        squares, own = float(self._products[0] + self._products[1]) / self.images, float(self._products[2])
        loss = squares - 2 * own / self.images
        exchanged = squares - 2 * self._other_mean(own, self._sums)
        return _ratio(exchanged - loss, exchanged)

    def _other_mean(self, own: float, sums: Tensor) -> float:
        """Mean product of predictions and targets of different images, from the sums of both."""
        pairs = self.images * (self.images - 1)
        return (float((sums[0] * sums[1]).sum()) - own) / pairs if pairs else math.nan

    def correlation(self) -> float:
        """Correlation across images, pooled over dimensions and positions: 0 if predictions ignore the image."""
        first, second = self._sums / self.images
        means = torch.stack([first.square().sum(), second.square().sum(), (first * second).sum()])
        first_variance, second_variance, covariance = (self._products[:3] / self.images - means).tolist()
        return _ratio(covariance, math.sqrt(max(first_variance, 0.0) * max(second_variance, 0.0)))


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., 2210.02885, eq. 1-2) of features [n, D], not centred; at most min(n, D)."""
    if not features.isfinite().all():
        return math.nan
    return _exp_entropy(torch.linalg.svdvals(features.double()))


def effective_rank(features: Tensor) -> float:
    """RankMe of centred features [n, D]: the number of dimensions in which images differ."""
    features = features.double()
    return rankme(features - features.mean(dim=0))


def alpha_req(features: Tensor) -> float:
    """Decay exponent of the covariance's eigenvalues, lambda_j ~ j^-alpha (Agrawal et al., 2022), features [n, D].

    It is minus the slope of a line fitted to log lambda over log j; larger values mean a steeper decay. The paper finds
    1 best. Eigenvalues at rounding level are excluded.
    """
    if not features.isfinite().all():
        return math.nan
    features = features.double()
    values = torch.linalg.svdvals(features - features.mean(dim=0)).square()
    values = values[values > values.max() * 1e-12]
    if len(values) < 3:
        return math.nan
    log_j = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device).log()
    log_j = log_j - log_j.mean()
    return float(-(log_j @ values.log()) / log_j.square().sum())


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
    if failed:  # features so large that the ridge is negligible
        return math.nan
    whitened = torch.linalg.solve_triangular(root, outer.T, upper=False)
    return _exp_entropy(torch.linalg.svdvals(whitened).square())


def _exp_entropy(values: Tensor) -> float:
    """The exponential of the entropy of ``values``, normalised to sum 1."""
    weights = values / values.sum()
    weights = weights[weights > 0]
    return float((-(weights * weights.log()).sum()).exp()) if len(weights) else math.nan


def _ratio(part: float, whole: float) -> float:
    if math.isnan(part) or math.isnan(whole):
        return math.nan
    return part / whole if whole > 0 else 0.0
