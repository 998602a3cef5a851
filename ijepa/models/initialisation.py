"""Weight initialisation, as published and as the reference implementation actually does it."""

from collections.abc import Iterable
from typing import Literal

from timm.models.vision_transformer import Block
from torch import nn

Init = Literal["published", "reference"]


def initialise(network: nn.Module, blocks: Iterable[nn.Module], init: Init) -> None:
    """Weights from a truncated normal (std .02), zero biases; the output layers of block i are divided by sqrt(2 i).

    Blocks are counted from 1. ``init="reference"`` omits the division: the reference implementation divides, but then
    draws all linear layers again.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    if init == "reference":
        return
    for depth, block in enumerate(blocks, start=1):
        assert isinstance(block, Block)
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.data.div_((2.0 * depth) ** 0.5)
