"""timm's vision transformers, by name, as patch encoders."""

import difflib
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import VisionTransformer, is_model_in_modules
from torch import Tensor, nn

from ijepa.models.positions import Grid, resample_positions
from ijepa.models.transformer import PatchTransformer
from ijepa.util.errors import ConfigError

KEY = "model.name"
TIMM_MODULES = ["vision_transformer", "deit"]
"""timm's modules of models that are `VisionTransformer`s."""
TIMM_ARGUMENTS = {"width": "embed_dim", "depth": "depth", "heads": "num_heads"}
"""timm's argument names, by our names, of the sizes that can be overridden."""


class TimmEncoder(PatchTransformer):
    """A timm `VisionTransformer` without classifier and pooling; parameters have timm's names.

    Class, distillation and register tokens pass through the blocks with the patches and are never among the features.

    Args:
        name: timm's model name.
        image_size: height and width of the pretraining images, in pixels; learnt positions are resampled to it.
        patch_size: side of a patch in pixels; None: the model's own.
        channels: number of image channels.
        options: sizes that differ from the model's own; keys as in `TIMM_ARGUMENTS`.
        pretrained: load timm's weights, which are downloaded once.

    Raises:
        ConfigError: if timm has no `VisionTransformer` of this name, or cannot build it with these sizes.
    """

    cls_token: Tensor | None
    dist_token: Tensor | None
    reg_token: Tensor | None
    pos_embed: Tensor | None

    def __init__(
        self,
        name: str,
        image_size: tuple[int, int],
        patch_size: int | None,
        channels: int,
        options: dict[str, int],
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        model = _create_model(name, image_size, patch_size, channels, options, pretrained)
        self.width: int = model.embed_dim
        self.depth = len(model.blocks)
        self.heads = next(int(module.num_heads) for module in model.blocks.modules() if hasattr(module, "num_heads"))
        self.patch_size: int = model.patch_embed.patch_size[0]
        self.grid: Grid = tuple(model.patch_embed.grid_size)
        for token in ("cls_token", "dist_token", "reg_token", "pos_embed"):
            self.register_parameter(token, getattr(model, token, None))
        self.patch_embed = model.patch_embed
        self.patch_embed.strict_img_size = False
        self.norm_pre = model.norm_pre
        self.blocks = nn.ModuleList(model.blocks)
        self.norm = model.norm
        self.fc_norm = model.fc_norm  # replaces norm in models that normalise after pooling

    def grid_of(self, height: int, width: int) -> Grid:
        """Rows and columns of patches of an image; raises ValueError if patches do not divide its size."""
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height}x{width} pixels cannot be divided into patches of {self.patch_size}")
        return height // self.patch_size, width // self.patch_size

    def embed(self, images: Tensor) -> Tensor:
        """The input of the first block: embedded patches plus position embeddings, [B, N, D].

        Args:
            images: [B, C, H, W], normalised.
        """
        tokens: Tensor = self.patch_embed(images)
        if self.pos_embed is not None:
            table = self.pos_embed[:, self._positioned_extra_tokens :]
            tokens = tokens + resample_positions(table, self.grid, self.grid_of(*images.shape[-2:])).to(tokens.dtype)
        normed: Tensor = self.norm_pre(tokens)
        return normed

    def extra_tokens(self) -> Tensor | None:
        """Class, distillation and register tokens, in timm's order, [1, R, D]."""
        extra = [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]
        if not extra:
            return None
        tokens = torch.cat(extra, dim=1)
        if self.pos_embed is not None and self._positioned_extra_tokens:
            tokens = tokens + self.pos_embed[:, : self._positioned_extra_tokens]
        normed: Tensor = self.norm_pre(tokens)
        return normed

    def final(self, tokens: Tensor) -> Tensor:
        """Applies the final norm, if the model has one."""
        normed: Tensor = self.fc_norm(self.norm(tokens))
        return normed

    @property
    def _positioned_extra_tokens(self) -> int:
        """Number of extra tokens that have position embeddings: all of them, or 0."""
        assert self.pos_embed is not None
        return self.pos_embed.shape[1] - self.grid[0] * self.grid[1]


def _create_model(
    name: str, image_size: tuple[int, int], patch_size: int | None, channels: int, options: dict[str, int],
    pretrained: bool,
) -> Any:  # fmt: skip
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models(module="vision_transformer"), n=1)
        suggestion = similar[0] if similar else "vit_small_patch16_224"
        raise ConfigError(KEY, name, f"timm has no such model; try {suggestion}")
    if not is_model_in_modules(name, TIMM_MODULES):
        raise ConfigError(
            KEY, name, "is not a timm VisionTransformer; try vit_small_patch16_224 or another vit_* model"
        )
    arguments: dict[str, Any] = {TIMM_ARGUMENTS[option]: value for option, value in options.items()}
    if patch_size is not None:
        arguments["patch_size"] = patch_size
    try:
        model = timm.create_model(
            name, pretrained=pretrained, num_classes=0, img_size=image_size, in_chans=channels, **arguments
        )
    except Exception as error:  # failed assertions in timm, network errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(KEY, name, f"timm could not build it: {reason}") from None
    sides = getattr(model.patch_embed, "patch_size", ())
    if not isinstance(model, VisionTransformer) or type(model.patch_embed) is not PatchEmbed or len(set(sides)) != 1:
        problem = "its patches interact before the blocks, or are not square; try vit_small_patch16_224"
        raise ConfigError(KEY, name, problem)
    return model
