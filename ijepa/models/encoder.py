"""The vision transformer of the context and target encoders."""

from functools import partial

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ijepa.models.initialisation import Init, initialise
from ijepa.models.positions import Grid, Positions, PositionTable, resample_positions
from ijepa.models.transformer import PatchTransformer, transformer_flops

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Encoder(PatchTransformer):
    """ViT without class token, with fixed sin-cos position embeddings and a final layer norm; timm's parameter names.

    Args:
        image_size: height and width of the pretraining images, in pixels.
        patch_size: side of a patch in pixels; must divide both.
        channels: number of image channels.
        width: embedding dimension D (timm: embed_dim).
        depth: number of transformer blocks.
        heads: number of attention heads; must divide ``width``.
        mlp_ratio: hidden width of the MLPs / ``width``.
        positions: see `PositionTable`; or ``stored``: position embeddings are loaded with the weights and not trained.
        position_grid: rows and columns of the grid that ``scaled`` positions are mapped onto, or of ``stored`` position
            embeddings; None: the grid of ``image_size``.
        init: see `initialise`.
        registers: number of learnable tokens that patches attend to; never among the features (Darcet et al.,
            2309.16588).
    """

    pos_embed: Tensor
    reg_token: Tensor

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
        registers: int = 0,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_size = patch_size
        self.channels = channels
        self.width = width
        self.depth = depth
        self.heads = heads
        self.mlp_ratio = mlp_ratio
        self.registers = registers
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
        if registers:  # drawn last, so that the other initial weights do not depend on registers
            self.reg_token = nn.Parameter(torch.zeros(1, registers, width))
            nn.init.trunc_normal_(self.reg_token, std=0.02)

    def grid_of(self, height: int, width: int) -> Grid:
        """Rows and columns of patches of an image; raises ValueError if patches do not divide its size."""
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height}x{width} pixels cannot be divided into patches of {self.patch_size}")
        return height // self.patch_size, width // self.patch_size

    def position_embeddings(self, grid: Grid, device: torch.device) -> Tensor:
        """The position embeddings [H * W, D] of an image of ``grid`` patches."""
        if self.positions.positions == "stored":
            return resample_positions(self.pos_embed, self.positions.grid, grid)
        return self.positions(grid, device)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches in pretraining."""
        return self.grid_of(*self.image_size)

    def embed(self, images: Tensor) -> Tensor:
        """The input of the first block: embedded patches plus position embeddings, [B, N, D].

        Args:
            images: [B, C, H, W], normalised.
        """
        tokens: Tensor = self.patch_embed(images)
        return tokens + self.position_embeddings(self.grid_of(*images.shape[-2:]), tokens.device).to(tokens.dtype)

    def extra_tokens(self) -> Tensor | None:
        """The registers, [1, R, D]."""
        return self.reg_token if self.registers else None

    def final(self, tokens: Tensor) -> Tensor:
        """Applies the final layer norm."""
        normed: Tensor = self.norm(tokens)
        return normed

    def embedding_flops(self, patches: int) -> float:
        """FLOPs to embed this number of patches."""
        return 2.0 * patches * self.patch_size**2 * self.channels * self.width

    def block_flops(self, patches: int) -> float:
        """FLOPs of the blocks for one image with this number of patches, including the registers."""
        return transformer_flops(patches + self.registers, self.width, self.depth, self.mlp_ratio)
