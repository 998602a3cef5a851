"""Weight initialisation: as published, as the reference implementation actually does it, and for small networks."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Init = Literal["published", "reference", "xavier", "whitened"]

CORRELATION = 0.95
"""Of neighbouring pixels, and of the channels of a pixel; as in small photographs."""
FLOOR = 0.01
"""Added to the eigenvalues of the pixels' covariance, relative to their mean: not all noise is amplified."""
OUTPUT_STD = 0.7
"""Largest standard deviation of embedded patches: that of the position embeddings."""


def initialise(network: nn.Module, blocks: Iterable[nn.Module], init: Init) -> None:
    """Draws all weights; biases become 0, layer norms the identity.

    ``published``: a truncated normal (std .02); the output layers of block i are divided by sqrt(2 i), blocks being
    counted from 1. ``reference`` omits the division: the reference implementation divides, but then draws all linear
    layers again.

    ``xavier``: uniform with variance 2 / (inputs + outputs) (Glorot and Bengio, 2010), the query, key and value
    matrices each on their own, the patch embedding as the linear layer that it is. Weights of std .02 are made for
    widths of 768 and patches of 16x16 pixels: with 48 inputs they leave the content of a patch a fraction of the size
    of its position embedding.

    ``whitened``: the same, but the patch embedding is a random rotation of whitened pixels. A patch's mean colour has
    most of its variance; whitened, edges and textures count from the first step on. The covariance is a model of
    natural images (`CORRELATION`), so that no data are needed.
    """
    transformer: list[Any] = list(blocks)
    attentions = [block.attn for block in transformer]
    stacked = {attn.qkv: 3 for attn in attentions if hasattr(attn, "qkv")}  # so many matrices in one
    stacked |= {attn.kv: 2 for attn in attentions if hasattr(attn, "kv")}
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            if init not in ("xavier", "whitened"):
                nn.init.trunc_normal_(module.weight, std=0.02)
            else:
                weight = module.weight.data.flatten(1)  # [outputs, inputs]
                for matrix in weight.chunk(stacked.get(module, 1)):
                    nn.init.xavier_uniform_(matrix)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    if init == "whitened":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data.copy_(_whitening_rotation(module))
    if init != "published":
        return
    for depth, block in enumerate(transformer, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.data.div_((2.0 * depth) ** 0.5)


def _whitening_rotation(embedding: nn.Conv2d) -> Tensor:
    """Weights [D, C, P, P] of a random rotation of whitened patches."""
    weight = embedding.weight.detach()
    rows, columns = (torch.arange(float(side)) for side in weight.shape[2:])
    pixels = torch.cartesian_prod(rows, columns)
    channels = CORRELATION + (1 - CORRELATION) * torch.eye(weight.shape[1])
    covariance = torch.kron(channels, CORRELATION ** torch.cdist(pixels, pixels)).double()
    values, vectors = torch.linalg.eigh(covariance)
    whitening = ((values + FLOOR * values.mean()).rsqrt() * vectors) @ vectors.T
    rotation = nn.init.orthogonal_(torch.empty(len(weight), len(whitening)))
    rotation = rotation / rotation.norm(dim=1).mean()
    return (OUTPUT_STD * rotation @ whitening.float()).view_as(weight)
