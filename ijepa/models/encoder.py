"""The vision transformer of the context and target encoders."""

from functools import partial

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ijepa.models.initialisation import Init, initialise
from ijepa.models.positions import Grid, Positions, PositionTable, resampled

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Encoder(nn.Module):
    """ViT without class token, with fixed sin-cos position embeddings and a final layer norm; timm's parameter names.

    Args:
        image_size: height and width of the pretraining images, in pixels.
        patch_size: side of a patch in pixels; must divide both.
        channels: number of image channels.
        width: embedding dimension D (timm: embed_dim).
        depth: number of transformer blocks.
        heads: number of attention heads; must divide ``width``.
        mlp_ratio: hidden width of the MLPs / ``width``.
        positions: see `PositionTable`; or ``stored``: position embeddings come with the weights and are not trained.
        position_grid: the grid that ``scaled`` positions are mapped onto, or that of ``stored`` ones; None: the grid
            of this image size.
        init: see `initialise`.
    """

    pos_embed: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        patch_size: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        positions: Positions = "index",
        position_grid: Grid | None = None,
        init: Init = "published",
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_size = patch_size
        self.channels = channels
        self.width = width
        self.depth = depth
        self.heads = heads
        self.mlp_ratio = mlp_ratio
        self.patch_embed = PatchEmbed(None, patch_size, channels, width, strict_img_size=False)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)
        )
        self.norm = LayerNorm(width)
        self.positions = PositionTable(width, position_grid or self.grid_of(*image_size), positions)
        if positions == "stored":
            rows, columns = self.positions.grid
            self.register_buffer("pos_embed", torch.zeros(1, rows * columns, width))
        initialise(self, self.blocks, init)

    def grid_of(self, height: int, width: int) -> Grid:
        """Rows and columns of patches of an image of this size."""
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height}x{width} pixels cannot be divided into patches of {self.patch_size}")
        return height // self.patch_size, width // self.patch_size

    def vectors(self, grid: Grid, device: torch.device) -> Tensor:
        """The position embeddings [H * W, D] of an image of ``grid`` patches."""
        if self.positions.positions == "stored":
            return resampled(self.pos_embed, self.positions.grid, grid)
        return self.positions(grid, device)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches in pretraining."""
        return self.grid_of(*self.image_size)

    def forward(
        self, images: Tensor, indices: Tensor | None = None, valid: Tensor | None = None, last: int = 1
    ) -> Tensor:
        """Features of all patches, or of the patches at ``indices``, which then attend only to each other.

        Args:
            images: [B, C, H, W], normalised.
            indices: [B, N'] or [B, T, K], patch indices in row-major order.
            valid: [B, N'], False for padding, which is masked in attention.
            last: number of last blocks whose outputs are concatenated, each through the final norm.

        Returns:
            [B, N, D * last]; with indices [B, N', D * last] or [B, T, K, D * last].
        """
        tokens = self.embed(images)  # [B, N, D]
        if indices is None:
            return self._blocks(tokens, None, last)
        tokens = gather(tokens, indices)
        mask = None if valid is None else valid[:, None, None, :]  # [B, 1, 1, N']
        return self._blocks(tokens.flatten(0, -3), mask, last).unflatten(0, indices.shape[:-1])

    def embed(self, images: Tensor) -> Tensor:
        """The input of the first block: embedded patches plus position embeddings, [B, N, D].

        Args:
            images: [B, C, H, W], normalised.
        """
        tokens: Tensor = self.patch_embed(images)
        return tokens + self.vectors(self.grid_of(*images.shape[-2:]), tokens.device).to(tokens.dtype)

    def _blocks(self, tokens: Tensor, mask: Tensor | None, last: int) -> Tensor:
        outputs = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, attn_mask=mask)
            if i >= len(self.blocks) - last:
                outputs.append(self.norm(tokens))
        return outputs[0] if last == 1 else torch.cat(outputs, dim=-1)


def gather(tokens: Tensor, indices: Tensor) -> Tensor:
    """Selects the tokens [B, N, D] at ``indices`` [B, ...]: [B, ..., D]."""
    flat = indices.flatten(1)[:, :, None].expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, flat).unflatten(1, indices.shape[1:])
