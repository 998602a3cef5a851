"""Attention weights of a block, for visualisation."""

from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor

from ijepa.models.protocol import PatchEncoder
from ijepa.models.transformer import PatchTransformer


@torch.no_grad()
def attention_weights(encoder: PatchEncoder, images: Tensor, block: int = -1) -> Tensor | None:
    """The attention weights between patches in one block, in float32; the encoder is not changed.

    They are recomputed from queries and keys, because fused attention kernels do not return them. Attention to class
    and register tokens is excluded.

    Args:
        encoder: in eval mode.
        images: [B, C, H, W], normalised.
        block: index of the block; negative: counted from the last block.

    Returns:
        [B, heads, N, N], from each patch (row) to all patches; rows sum to 1. None if the blocks are not timm's.
    """
    if not isinstance(encoder, PatchTransformer):
        return None
    attention_block: Any = encoder.blocks[block]
    if not isinstance(getattr(attention_block, "attn", None), Attention):
        return None
    patches = encoder.embed(images)
    tokens = encoder.with_extra_tokens(patches)
    extra = tokens.shape[1] - patches.shape[1]
    for earlier_block in encoder.blocks:
        if earlier_block is attention_block:
            break
        tokens = earlier_block(tokens)
    layer = attention_block.attn
    normed = attention_block.norm1(tokens)
    qkv = layer.qkv(normed).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, N, d]
    queries, keys = layer.q_norm(qkv[0]).float(), layer.k_norm(qkv[1]).float()
    return (queries @ keys.transpose(-2, -1) * layer.scale)[..., extra:, extra:].softmax(dim=-1)
