"""Construction of targets from the target encoder's output or from pixels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normalize_targets(targets: Tensor, levels: int = 1) -> Tensor:
    """Layer norm without affine over the last dimension, eps 1e-5, in float32 (reference implementation).

    Args:
        targets: [..., D * L], the features of L depths, each normalised by itself.
        levels: L.
    """
    parts = targets.float().unflatten(-1, (levels, -1))
    return F.layer_norm(parts, parts.shape[-1:]).flatten(-2)


class TargetStatistics(nn.Module):
    """Standardises targets: minus the mean at their position, divided by the standard deviation around that mean.

    What position alone explains is removed, so that no prediction is rewarded for it; and every dimension counts alike,
    not only those in which features vary most. Mean and variance are exponential moving averages over the steps before:
    they depend neither on gradient accumulation nor on the number of devices. Before the first `update`, targets are
    not changed.

    Args:
        patches: N.
        width: of the targets.
        decay: of the moving averages; they start as plain averages.
    """

    EPS = 1e-6
    mean: Tensor
    variance: Tensor
    steps: Tensor
    sums: Tensor
    images: Tensor

    def __init__(self, patches: int, width: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(patches, width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("sums", torch.zeros(2, patches, width), persistent=False)
        self.register_buffer("images", torch.zeros(()), persistent=False)

    def forward(self, targets: Tensor) -> Tensor:
        """Standardises ``targets`` [B, N, D]; in training mode, they also count in the next `update`."""
        if self.training:
            self.sums += torch.stack([targets.sum(dim=0), targets.square().sum(dim=0)])
            self.images += len(targets)
        return (targets - self.mean) * (self.variance + self.EPS).rsqrt()

    def update(
        self, all_reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, skipped: Tensor | None = None
    ) -> None:
        """Takes in the targets of one step.

        Args:
            all_reduce: sums a tensor over all processes.
            skipped: bool [], if true, the targets of the step are dropped.
        """
        images = all_reduce(self.images.clone())
        mean, squares = all_reduce(self.sums.clone()) / images  # [N, D] each
        taken = 1 if skipped is None else (~skipped).long()
        if skipped is not None:
            mean, squares = torch.where(skipped, 0.0, mean), torch.where(skipped, 0.0, squares)
        self.steps += taken
        rate = torch.clamp(1 / self.steps.clamp(min=1), min=1 - self.decay) * taken  # 0 steps: the first is skipped
        self.mean.lerp_(mean, rate)
        around = squares - self.mean * (2 * mean - self.mean)  # mean squared distance from the new mean
        self.variance.lerp_(around.mean(dim=0).clamp(min=0), rate)
        self.sums.zero_()
        self.images.zero_()


def pixel_targets(images: Tensor, patch_size: int) -> Tensor:
    """Pixel patches, each normalised by its own mean and variance (paper, table 7).

    Args:
        images: [B, C, H, W].
        patch_size: side P; must divide H and W.

    Returns:
        [B, N, P * P * C], patches in row-major order, each with unit variance.
    """
    patches = F.unfold(images.float(), kernel_size=patch_size, stride=patch_size).transpose(1, 2)
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
