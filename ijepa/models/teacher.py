"""A frozen encoder whose features are predicted, instead of a moving average's."""

from typing import Any

import torch
from torch import Tensor, nn

from ijepa.models.pretrained import PretrainedEncoder, Spec


class Teacher(nn.Module):
    """Features of a frozen encoder, for images that are normalised for another one (SALT, arXiv 2509.24317).

    Args:
        pretrained: the encoder; it may have another width and depth than the one that is trained, but the same grid.
        spec: of the encoder that is trained, whose mean and standard deviation the images have.

    Raises:
        ValueError: if the two encoders divide images into other patches, or have other channels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, pretrained: PretrainedEncoder, spec: Spec) -> None:
        super().__init__()
        own = pretrained.spec
        for name in ("image_size", "patch_size", "channels"):
            if getattr(own, name) != getattr(spec, name):
                raise ValueError(f"its encoder has {name}={getattr(own, name)}, not {getattr(spec, name)}")
        self.spec = own
        self.encoder = pretrained.encoder.requires_grad_(False)
        pairs = (spec.mean, own.mean), (spec.std, own.std)
        (mean, own_mean), (std, own_std) = ((torch.tensor(v).view(-1, 1, 1) for v in pair) for pair in pairs)
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    def forward(self, images: Tensor, indices: Tensor | None = None, **options: Any) -> Tensor:
        """As the encoder; ``images`` [B, C, H, W] are normalised as in training."""
        features: Tensor = self.encoder(images * self.scale + self.shift, indices, **options)
        return features

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode."""
        return super().train(False)
