"""Linear classifiers on the same features, trained together, each with its own learning rate and weight decay."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.interop.classifier import linear

TRUST_COEFFICIENT = 0.001
"""Of LARS: norm of a step / norm of the weights, before the learning rate."""
EPS = 1e-12


class Setting(NamedTuple):
    """The hyperparameters of a head."""

    layers: int
    batch_norm: bool
    lr: float
    weight_decay: float


def setting_grid(layers: int, batch_norm: bool, lr: list[float], weight_decay: list[float]) -> list[Setting]:
    """The settings of heads with the same input features: each learning rate with each weight decay."""
    return [Setting(layers, batch_norm, *pair) for pair in itertools.product(lr, weight_decay)]


class Heads(nn.Module):
    """H linear classifiers from [B, D] to K classes, optionally with batch norm of the features.

    Args:
        width: feature dimension D.
        classes: number of classes K.
        lr: [H], multiplied by `step`'s factor.
        weight_decay: [H], not applied to biases.
        batch_norm: one batch norm without affine parameters, shared by all heads.
        momentum: the optimiser's momentum.
        lars: LARS (You et al., 1708.03888) instead of SGD with Nesterov momentum.
        generator: draws the initial weights.
    """

    def __init__(
        self, width: int, classes: int, lr: Tensor, weight_decay: Tensor, batch_norm: bool, momentum: float, lars: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        heads = len(lr)
        self.norm = nn.BatchNorm1d(width, affine=False) if batch_norm else nn.Identity()
        initial = torch.empty(width, classes).normal_(std=0.01, generator=generator)  # the same for all heads
        self.weight = nn.Parameter(initial.expand(heads, -1, -1).clone())  # [H, D, K]
        self.bias = nn.Parameter(torch.zeros(heads, 1, classes))
        self.lr = lr.view(-1, 1, 1)
        self.weight_decay = weight_decay.view(-1, 1, 1)
        self.momentum = momentum
        self.lars = lars
        self._velocity = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]

    def forward(self, features: Tensor) -> Tensor:
        """Logits [H, B, K] of features [B, D]."""
        return self.norm(features) @ self.weight + self.bias

    @torch.no_grad()
    def head(self, number: int, width: int) -> nn.Linear:
        """A head in eval mode as a linear layer of features [B, ``width``], of which it takes the last D."""
        weight, bias = self.weight[number], self.bias[number, 0]  # [D, K], [K]
        if isinstance(self.norm, nn.BatchNorm1d):
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            weight = weight / (self.norm.running_var + self.norm.eps).sqrt()[:, None]
            bias = bias - self.norm.running_mean @ weight
        padded = F.pad(weight.T, (width - len(weight), 0))
        return linear(padded, bias)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The sum over heads of the mean cross-entropy; no head changes another's gradients."""
        logits = self(features)
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="sum") / len(labels)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One optimiser step, at ``factor`` times the learning rates; also clears the gradients."""
        for parameter, velocity, decayed in zip((self.weight, self.bias), self._velocity, (True, False), strict=True):
            gradient = parameter.grad
            assert gradient is not None
            if decayed:
                gradient = gradient + self.weight_decay.to(gradient.device) * parameter
                if self.lars:
                    norm = gradient.flatten(1).norm(dim=1).clamp(min=EPS)
                    gradient = gradient * (TRUST_COEFFICIENT * parameter.flatten(1).norm(dim=1) / norm)[:, None, None]
            velocity.mul_(self.momentum).add_(gradient)
            update = velocity if self.lars else gradient + self.momentum * velocity
            parameter.sub_(factor * self.lr.to(gradient.device) * update)
            parameter.grad = None

    def to(self, device: torch.device) -> "Heads":  # type: ignore[override]
        """Moves the parameters and the optimiser's state."""
        self._velocity = [velocity.to(device) for velocity in self._velocity]
        return super().to(device)
