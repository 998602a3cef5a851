"""Linear layers on patch features, upsample to pixels: many trained at once, each with its own learning rate."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.evaluation.targets import Target
from ijepa.interop.classifier import linear

Grid = tuple[int, int]


class PixelHeads(nn.Module):
    """H linear layers from patch features [B, N, D] to K outputs per patch, trained with AdamW as in DINOv2's probes.

    Args:
        width: D.
        start: [K], the initial biases.
        lr: [H], multiplied by `step`'s factor.
        weight_decay: [H], not applied to biases.
        batch_norm: one batch norm over patches, without affine parameters, shared by all heads; its running statistics
            are averages over all steps.
        generator: draws the initial weights.
    """

    def __init__(
        self, width: int, start: Tensor, lr: list[float], weight_decay: list[float], batch_norm: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, momentum=None) if batch_norm else nn.Identity()
        initial = torch.empty(width, len(start)).normal_(std=0.01, generator=generator)  # the same for all
        self.weights = nn.ParameterList(initial.clone() for _ in lr)  # [D, K]
        self.biases = nn.ParameterList(start.cpu().clone() for _ in lr)
        self.to(start.device)
        groups = []
        for head_lr, decay, weight, bias in zip(lr, weight_decay, self.weights, self.biases, strict=True):
            groups += [{"params": [weight], "lr": head_lr, "weight_decay": decay}]
            groups += [{"params": [bias], "lr": head_lr, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups)
        self.lr_by_group = [head_lr for head_lr in lr for _ in range(2)]

    def forward(self, features: Tensor) -> Tensor:
        """Outputs [H, B * N, K] from patch features [B, N, D]."""
        inputs = self.norm(features.flatten(0, 1))
        return torch.stack([inputs @ weight + bias for weight, bias in zip(self.weights, self.biases, strict=True)])

    def backward(self, target: Target, features: Tensor, grid: Grid, maps: Tensor) -> None:
        """Backpropagates each head's loss for these maps [B, H, W].

        Heads are upsampled one at a time: all at once would take H * K maps of each image.
        """
        patches = self(features)
        gradients = []
        for outputs in patches.detach():
            outputs.requires_grad_()
            target.loss(upsample(outputs, grid, maps), maps).backward()  # type: ignore[no-untyped-call]
            gradients.append(outputs.grad)
        patches.backward(torch.stack(gradients))

    def linear(self, head: int) -> nn.Linear:
        """A head alone, on features [.., D] before the batch norm, which becomes part of its weights and biases."""
        weight, bias = self.weights[head].detach(), self.biases[head].detach()
        if isinstance(self.norm, nn.BatchNorm1d):
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            weight = weight / (self.norm.running_var + self.norm.eps).sqrt()[:, None]
            bias = bias - self.norm.running_mean @ weight
        return linear(weight.T.cpu(), bias.cpu())

    def step(self, factor: float) -> None:
        """One optimiser step, at ``factor`` times the learning rates; also clears the gradients."""
        for group, lr in zip(self.optimizer.param_groups, self.lr_by_group, strict=True):
            group["lr"] = factor * lr
        self.optimizer.step()
        self.optimizer.zero_grad()


def upsample(patches: Tensor, grid: Grid, maps: Tensor) -> Tensor:
    """Bilinearly upsamples a head's outputs [B * N, K] to the size of ``maps`` [B, H, W]: [B, K, H, W]."""
    coarse = patches.unflatten(0, (len(maps), *grid)).permute(0, 3, 1, 2)
    return F.interpolate(coarse, size=maps.shape[1:], mode="bilinear", align_corners=False)
