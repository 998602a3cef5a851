"""Construction of targets from the target encoder's output or from pixels."""

from torch import Tensor
from torch.nn import functional as F


def normalize_targets(targets: Tensor) -> Tensor:
    """Layer norm without affine over the last dimension, eps 1e-5, in float32 (reference implementation)."""
    return F.layer_norm(targets.float(), targets.shape[-1:])


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
