"""Which patches attend to which."""

from typing import Any

import torch
from torch import Tensor

from ijepa.models.encoder import Encoder


@torch.no_grad()
def attention(encoder: Encoder, images: Tensor, block: int = -1) -> Tensor:
    """The attention weights of a block, in float32; the encoder is left as it is.

    They are computed from its queries and keys: the fused kernels that the encoder runs with never hold them.

    Args:
        encoder: in eval mode.
        images: [B, C, H, W], normalised.
        block: index; negative from the last one back.

    Returns:
        [B, heads, N, N], of each patch to all patches; rows sum to 1.
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
