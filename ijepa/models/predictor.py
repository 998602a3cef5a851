"""The predictor: a narrow transformer from context features and target positions to target features."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ijepa.models.encoder import LayerNorm
from ijepa.models.initialisation import Init, initialise
from ijepa.models.positions import Grid, Positions, PositionTable
from ijepa.models.transformer import gather, transformer_flops


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
    ) -> None:
        super().__init__()
        self.encoder_width = encoder_width
        self.grid = grid
        self.width = width
        self.depth = depth
        self.mlp_ratio = mlp_ratio
        self.output_width = output_width
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)
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
        return blocks * transformer_flops(context + patches, self.width, self.depth, self.mlp_ratio) + projections
