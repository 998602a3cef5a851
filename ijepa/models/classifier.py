"""An encoder with linear heads on average-pooled patches, for fine-tuning."""

import copy
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from ijepa.models.pretrained import PretrainedEncoder
from ijepa.models.protocol import blocks_of

HEAD_STD = 0.02
"""Standard deviation of a head's initial weights, as in the encoder; with a much smaller value, training from scratch
starts slowly."""


class Classifier(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to logits [B, K] by label set.

    Args:
        pretrained: the encoder; it is copied.
        classes: number of classes K by label set.
        drop_path: stochastic depth rate of the last block; it increases linearly from 0 in the first block.

    Raises:
        ValueError: if ``drop_path`` > 0 and the encoder's blocks do not support it (see `drop_path_blocks`).
    """

    def __init__(self, pretrained: PretrainedEncoder, classes: dict[str, int], drop_path: float) -> None:
        super().__init__()
        self.pretrained = copy.deepcopy(pretrained).requires_grad_(True)
        blocks = drop_path_blocks(self.pretrained)
        if drop_path and not blocks:
            raise ValueError("the encoder's blocks have no stochastic depth")
        for block, rate in zip(blocks, torch.linspace(0, drop_path, len(blocks)).tolist(), strict=True):
            block.drop_path1, block.drop_path2 = (DropPath(rate) if rate else nn.Identity() for _ in range(2))
        heads = {name: nn.Linear(pretrained.spec.width, k) for name, k in classes.items()}
        for head in heads.values():
            nn.init.trunc_normal_(head.weight, std=HEAD_STD)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pooled = self.pretrained(images).mean(dim=1)  # [B, D]
        return {name: head(pooled) for name, head in self.heads.items()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that group parameters into layers, for timm's layer-wise learning rate decay."""
        encoder = r"^pretrained\.encoder\."
        if not blocks_of(self.pretrained.encoder):
            return {"stem": encoder}
        blocks = [(encoder + r"blocks\.(\d+)", None), (encoder + "norm", (99999,))]
        return {"stem": encoder + "patch_embed", "blocks": blocks}


def drop_path_blocks(pretrained: PretrainedEncoder) -> list[Any]:
    """The encoder's blocks if all of them have stochastic depth as timm's `Block` has it, else []."""
    blocks = blocks_of(pretrained.encoder)
    return blocks if all(hasattr(block, "drop_path1") and hasattr(block, "drop_path2") for block in blocks) else []
