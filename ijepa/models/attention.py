"""Attention weights of a block, for visualisation."""

from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor

from ijepa.models.protocol import PatchEncoder
from ijepa.models.transformer import PatchTransformer


@torch.no_grad()
def attention(encoder: PatchEncoder, images: Tensor, block: int = -1) -> Tensor | None:
    """The attention weights of a block, in float32; the encoder is not changed.

    They are computed from its queries and keys: the fused kernels that the encoder runs with never hold them. Attention
    to class and register tokens is left out.

    Args:
        encoder: in eval mode.
        images: [B, C, H, W], normalised.
        block: index; negative: counted from the last block.

    Returns:
        [B, heads, N, N], of each patch to all patches; rows sum to 1. None for an encoder whose blocks are not timm's.
    """
    if not isinstance(encoder, PatchTransformer):
        return None
    chosen: Any = encoder.blocks[block]
    if not isinstance(getattr(chosen, "attn", None), Attention):
        return None
    patches = encoder.embed(images)
    tokens = encoder.with_extra_tokens(patches)
    extra = tokens.shape[1] - patches.shape[1]
    for before in encoder.blocks:
        if before is chosen:
            break
        tokens = before(tokens)
    layer = chosen.attn
    seen = chosen.norm1(tokens)
    heads = layer.qkv(seen).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, heads, N, d]
    queries, keys = layer.q_norm(heads[0]).float(), layer.k_norm(heads[1]).float()
    return (queries @ keys.transpose(-2, -1) * layer.scale)[..., extra:, extra:].softmax(dim=-1)
