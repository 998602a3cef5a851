"""Weight initialisation: as published, as the reference implementation actually does it, and for small networks."""

from collections.abc import Iterable
from typing import Literal

from timm.models.vision_transformer import Block
from torch import nn

Init = Literal["published", "reference", "xavier"]


def initialise(network: nn.Module, blocks: Iterable[nn.Module], init: Init) -> None:
    """Draws all weights; biases become 0, layer norms the identity.

    ``published``: a truncated normal (std .02); the output layers of block i are divided by sqrt(2 i), blocks being
    counted from 1. ``reference`` omits the division: the reference implementation divides, but then draws all linear
    layers again.

    ``xavier``: uniform with variance 2 / (inputs + outputs) (Glorot and Bengio, 2010), the query, key and value
    matrices each on their own, the patch embedding as the linear layer that it is. Weights of std .02 are made for
    widths of 768 and patches of 16x16 pixels: with 48 inputs they leave the content of a patch a fraction of the size
    of its position embedding.
    """
    transformer = [block for block in blocks if isinstance(block, Block)]
    stacked = {block.attn.qkv for block in transformer}  # three matrices in one
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            if init != "xavier":
                nn.init.trunc_normal_(module.weight, std=0.02)
            else:
                weight = module.weight.data.flatten(1)  # [outputs, inputs]
                for matrix in weight.chunk(3) if module in stacked else [weight]:
                    nn.init.xavier_uniform_(matrix)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    if init != "published":
        return
    for depth, block in enumerate(transformer, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.data.div_((2.0 * depth) ** 0.5)
