"""The predictor: a narrow transformer from context features and target positions to target features."""

from typing import Literal

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.models.encoder import LayerNorm
from ijepa.models.initialisation import Init, initialise
from ijepa.models.positions import Grid, Positions, PositionTable
from ijepa.models.transformer import gather, transformer_flops

Attention = Literal["joint", "cross"]


class CrossAttention(nn.Module):
    """Multi-head attention from queries to other tokens, with parameter names like timm's `Attention`.

    Attributes:
        fused_attn: as timm's: by torch's fused function, not written out.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.fused_attn = True

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """What ``queries`` [B, K, P] attend to in ``tokens`` [B, C, P]: [B, K, P]; for ``mask`` see `CrossBlock`."""
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.q(queries), *self.kv(tokens).chunk(2, -1))
        )  # [B, heads, K or C, P / heads]
        if self.fused_attn:
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, heads, K, C]
            found = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1) @ v
        mixed: Tensor = self.proj(found.transpose(1, 2).flatten(2))
        return mixed


class CrossBlock(nn.Module):
    """A transformer block without self-attention: queries attend to the context, never to each other (CAPI)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.norm_context = LayerNorm(width)
        self.attn = CrossAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps ``queries`` [B, K, P] to [B, K, P].

        Args:
            queries: one for each target patch.
            context: [B, C, P], the same for all blocks.
            mask: [B, 1, 1, C], False for padding; None: no padding.
        """
        queries = queries + self.attn(self.norm1(queries), self.norm_context(context), mask)
        mapped: Tensor = queries + self.mlp(self.norm2(queries))
        return mapped


class Predictor(nn.Module):
    """Predicts each target block separately from the context (paper, section 3 and appendix A.1).

    Args:
        encoder_width: width D of the context features.
        output_width: width of the targets: D, or the number of pixel values per patch.
        grid: rows and columns of patches.
        width: embedding dimension.
        depth: number of transformer blocks.
        heads: number of attention heads; must divide ``width``.
        mlp_ratio: hidden width of the MLPs / ``width``.
        positions: see `PositionTable`; ``stored`` (an encoder's) means ``index`` here.
        position_grid: rows and columns of the grid that ``scaled`` positions are mapped onto; None: ``grid``.
        init: see `initialise`.
        attention: ``joint``: context and mask tokens attend to each other, as published. ``cross``: mask tokens attend
            to the context only (CAPI, 2502.08769), which costs less, above all with several target blocks: predictions
            do not depend on each other, so all blocks share one pass.
    """

    def __init__(
        self,
        encoder_width: int,
        output_width: int,
        grid: Grid,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "index",
        position_grid: Grid | None = None,
        init: Init = "published",
        attention: Attention = "joint",
    ) -> None:
        super().__init__()
        self.encoder_width = encoder_width
        self.grid = grid
        self.width = width
        self.depth = depth
        self.mlp_ratio = mlp_ratio
        self.output_width = output_width
        self.attention = attention
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            CrossBlock(width, heads, mlp_ratio)
            if attention == "cross"
            else Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm)
            for _ in range(depth)
        )
        self.norm = LayerNorm(width)
        self.proj = nn.Linear(width, output_width)
        if positions == "stored":  # only an encoder's can be stored
            positions, position_grid = "index", None
        self.positions = PositionTable(width, position_grid or grid, positions)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        initialise(self, self.blocks, init)

    def forward(
        self, context: Tensor, context_indices: Tensor, target_indices: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The predicted features at ``target_indices``.

        Args:
            context: [B, C, D], the context encoder's output.
            context_indices: [B, C], patch indices in row-major order.
            target_indices: [B, T, K], patch indices in row-major order.
            valid: [B, C], False for padding, which is masked in attention; None: no padding.

        Returns:
            [B, T, K, output_width].
        """
        blocks, patches = target_indices.shape[1:]
        table = self.positions(self.grid, context.device).to(context.dtype).expand(len(context), -1, -1)
        visible = self.embed(context) + gather(table, context_indices)  # [B, C, P]
        masked = self.mask_token[:, None] + gather(table, target_indices)  # [B, T, K, P]
        if self.attention == "cross":
            mask = None if valid is None else valid[:, None, None, :]
            queries = masked.flatten(1, 2)
            for block in self.blocks:
                queries = block(queries, visible, mask)
            independent: Tensor = self.proj(self.norm(queries))
            return independent.unflatten(1, (blocks, patches))
        visible = visible[:, None].expand(-1, blocks, -1, -1).to(masked.dtype)
        tokens = torch.cat([visible, masked], dim=2).flatten(0, 1)  # [B * T, C + K, P]
        mask = None
        if valid is not None:
            attended = torch.cat([valid, valid.new_ones(len(valid), patches)], dim=1)  # [B, C + K]
            mask = attended.repeat_interleave(blocks, dim=0)[:, None, None, :]
        for block in self.blocks:
            tokens = block(tokens, attn_mask=mask)
        predictions: Tensor = self.proj(self.norm(tokens[:, -patches:]))
        return predictions.unflatten(0, (-1, blocks))

    def forward_flops(self, context: int, blocks: int, patches: int) -> float:
        """FLOPs for one image with C = ``context``, T = ``blocks`` and K = ``patches``."""
        input_size = context * self.encoder_width  # once per image, then shared by the blocks
        output_size = blocks * patches * self.output_width
        projections = 2.0 * self.width * (input_size + output_size)
        if self.attention == "joint":
            return blocks * transformer_flops(context + patches, self.width, self.depth, self.mlp_ratio) + projections
        queries, hidden = blocks * patches, int(self.width * self.mlp_ratio)
        per_query = 2 * self.width**2 + 2 * self.width * hidden + 2 * context * self.width
        return 2.0 * self.depth * (queries * per_query + context * 2 * self.width**2) + projections
