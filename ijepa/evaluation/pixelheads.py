"""Linear layers on patch features, upsampled to pixels: many trained at once, each with its own learning rate."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.evaluation.targets import Target

Grid = tuple[int, int]


class PixelHeads(nn.Module):
    """H linear layers from [B, N, D] to K numbers a patch, trained by AdamW as DINOv2's dense probes are.

    Args:
        width: D.
        start: [K], where predictions begin.
        lr: [H], multiplied by `step`'s factor.
        weight_decay: [H], not applied to biases.
        batch_norm: one batch norm over patches, without affine weights, for all of them; on average over all steps.
    """

    def __init__(
        self, width: int, start: Tensor, lr: list[float], weight_decay: list[float], batch_norm: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, momentum=None) if batch_norm else nn.Identity()
        first = torch.empty(width, len(start)).normal_(std=0.01, generator=generator)  # all heads begin as the same one
        self.weights = nn.ParameterList(first.clone() for _ in lr)  # [D, K]
        self.biases = nn.ParameterList(start.cpu().clone() for _ in lr)
        self.to(start.device)
        groups = []
        for rate, decay, weight, bias in zip(lr, weight_decay, self.weights, self.biases, strict=True):
            groups += [{"params": [weight], "lr": rate, "weight_decay": decay}]
            groups += [{"params": [bias], "lr": rate, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups)
        self.rates = [rate for rate in lr for _ in range(2)]

    def forward(self, features: Tensor) -> Tensor:
        """Patch by patch [H, B * N, K], from features [B, N, D]."""
        shown = self.norm(features.flatten(0, 1))
        return torch.stack([shown @ weight + bias for weight, bias in zip(self.weights, self.biases, strict=True)])

    def backward(self, target: Target, features: Tensor, grid: Grid, maps: Tensor) -> None:
        """Adds the gradients of each head's loss for these maps [B, H, W]; upsamples one head at a time.

        All heads' at once would be H times K maps of every image.
        """
        patches = self(features)
        slopes = []
        for each in patches.detach():
            each.requires_grad_()
            target.loss(upsampled(each, grid, maps), maps).backward()  # type: ignore[no-untyped-call]
            slopes.append(each.grad)
        patches.backward(torch.stack(slopes))

    def step(self, factor: float) -> None:
        """One step along the gradients, at ``factor`` times the learning rates; the gradients are gone afterwards."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate
        self.optimizer.step()
        self.optimizer.zero_grad()


def upsampled(patches: Tensor, grid: Grid, maps: Tensor) -> Tensor:
    """From a head's outputs [B * N, K] to [B, K, H, W], bilinearly, as large as ``maps`` [B, H, W]."""
    coarse = patches.unflatten(0, (len(maps), *grid)).permute(0, 3, 1, 2)
    return F.interpolate(coarse, size=maps.shape[1:], mode="bilinear", align_corners=False)
