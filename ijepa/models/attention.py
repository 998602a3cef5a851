"""Attention weights of a block, for visualisation."""

from typing import Any

import torch
from torch import Tensor

from ijepa.models.encoder import Encoder


@torch.no_grad()
def attention(encoder: Encoder, images: Tensor, block: int = -1) -> Tensor:
    """The attention weights of a block, in float32; the encoder is not changed.

    They are recomputed from queries and keys, because fused attention kernels do not return them.

    Args:
        encoder: in eval mode.
        images: [B, C, H, W], normalised.
        block: index; negative: counted from the last block.

    Returns:
        [B, heads, N, N], from each patch (row) to all patches; rows sum to 1.
    """
    chosen: Any = encoder.blocks[block]  # timm's
    tokens = encoder.embed(images)
    for before in encoder.blocks:
        if before is chosen:
            break
        tokens = before(tokens)
    layer = chosen.attn
    seen = chosen.norm1(tokens)
    heads = layer.qkv(seen).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, N, d]
    queries, keys = layer.q_norm(heads[0]).float(), layer.k_norm(heads[1]).float()
    return (queries @ keys.transpose(-2, -1) * layer.scale).softmax(dim=-1)
