"""The objective: a weighted sum of terms, each logged under its name (paper, section 3)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ijepa.training.terms import DISTANCES, Covariance, Distance, Outputs, Pixels, Regularized, Variance
from ijepa.util.errors import UserError

BUILT_IN = ("distance", "pixels", "variance", "covariance")
"""Names of the terms that come with this software."""
RESERVED = (*BUILT_IN, "total", "loss")
"""Names that a term of the user's cannot have."""


class Loss(NamedTuple):
    """The weighted sum to minimise, and the unweighted terms by name; all are scalars."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """A weighted sum of terms.

    Args:
        terms: modules from `Outputs` to a scalar, by name, in the order in which they are summed.
        weights: weight of each term, by name.
        num_patches: N, patches of an image.
        all_reduce: sums a tensor over all processes, with gradients; None: a single process.
        pixels: how many of the last dimensions of predictions and targets are pixels, see `Outputs.pixels`.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        num_patches: int = 1,
        all_reduce: Callable[[Tensor], Tensor] | None = None,
        pixels: int = 0,
    ) -> None:
        super().__init__()
        self.pixels = pixels
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)
        self.num_patches = num_patches
        self.all_reduce = all_reduce

    def forward(
        self, predictions: Tensor, targets: Tensor, context: Tensor, positions: Tensor, valid: Tensor | None = None
    ) -> Loss:
        """The loss, computed in float32; for shapes see `Outputs`.

        Raises:
            UserError: when a term does not return a scalar tensor.
        """
        predictions, targets, pixels = predictions.float(), targets.float(), None
        if self.pixels:
            widths = [predictions.shape[-1] - self.pixels, self.pixels]
            (predictions, predicted), (targets, true) = (part.split(widths, -1) for part in (predictions, targets))
            pixels = predicted, true
        outputs = Outputs(predictions, targets, context.float(), positions, valid, self.num_patches, pixels=pixels)
        if self.all_reduce is not None:
            outputs.all_reduce = self.all_reduce
        parts, total = {}, None
        with torch.autocast(predictions.device.type, enabled=False):
            for name, term in self.terms.items():
                value: Tensor = term(outputs)
                if not isinstance(value, Tensor) or value.ndim:
                    shape = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
                    raise UserError(f"objective.terms.{name}: gives {shape}; return a scalar tensor")
                weighted = value if self.weights[name] == 1 else self.weights[name] * value
                parts[name] = value
                total = weighted if total is None else total + weighted
        assert total is not None
        return Loss(total, parts)


def latent_objective(
    distance: Distance,
    variance_weight: float = 0.0,
    covariance_weight: float = 0.0,
    regularize: Regularized = "context",
    num_patches: int = 1,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
    extra_terms: Mapping[str, tuple[nn.Module, float]] | None = None,
    distance_weight: float = 1.0,
    pixels: int = 0,
    pixel_weight: float = 0.0,
) -> Objective:
    """Distance in latent space; plus both VICReg regularisers if either weight is not 0.

    Args:
        distance: squared L2 (paper), smooth L1 (reference implementation) or L1.
        variance_weight: weight of `Variance`.
        covariance_weight: weight of `Covariance`.
        regularize: the features that these two act on, see `Outputs.covariance`.
        num_patches: see `Objective`.
        all_reduce: see `Objective`.
        extra_terms: terms with their weights, by name.
        distance_weight: weight of the distance.
        pixels: see `Objective`.
        pixel_weight: weight of the distance to pixels, if there are any.
    """
    terms: dict[str, tuple[nn.Module, float]] = {"distance": (DISTANCES[distance](), distance_weight)}
    if pixels:
        terms["pixels"] = Pixels(distance), pixel_weight
    if variance_weight or covariance_weight:
        terms["variance"] = Variance(regularize), variance_weight
        terms["covariance"] = Covariance(regularize), covariance_weight
    terms |= extra_terms or {}
    modules = {name: module for name, (module, _) in terms.items()}
    return Objective(modules, {name: weight for name, (_, weight) in terms.items()}, num_patches, all_reduce, pixels)
