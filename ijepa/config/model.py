"""Configuration of the networks."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ijepa.config.custom import TARGET, Custom
from ijepa.config.fields import Count, Ratio, Section, Size, Text
from ijepa.util.sizes import MAX_DEPTH, MAX_WIDTH

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH, strict=True)]
Depth = Annotated[int, Field(ge=1, le=MAX_DEPTH, strict=True)]


class Vit(Section):
    """I-JEPA's vision transformer."""

    patch_size: Count
    """side of a patch in pixels; must divide data.image_size"""
    width: Width
    """embedding dimension D (timm: embed_dim); a multiple of 4 and of heads"""
    depth: Depth
    """number of transformer blocks"""
    heads: Count
    """number of attention heads; must divide width and predictor.width"""
    mlp_ratio: Ratio
    """hidden width of the MLPs / width"""
    positions: Literal["index", "scaled", "stored"]
    """position embeddings: sin-cos of patch indices (index, as published) or of positions on position_grid (scaled);
    or those of init= (stored)"""
    position_grid: Size | None
    """rows and columns of the grid of scaled or stored position embeddings; null: this run's grid"""
    init: Literal["published", "reference", "xavier", "whitened"]
    """initial weights: as published; reference: not rescaled by depth; xavier: for small patches; whitened: xavier and
    a whitening patch embedding"""
    registers: Annotated[int, Field(ge=0, le=1024, strict=True)] = 0
    """number of register tokens: learnable tokens that patches attend to, never among the features"""


class TimmVit(Section):
    """A VisionTransformer of timm."""

    name: Text
    """timm's model name, such as vit_small_patch16_224; the model may have class and register tokens"""
    pretrained: bool
    """start from timm's weights, which are downloaded once"""
    patch_size: Count | None
    """side of a patch in pixels; must divide data.image_size; null: the model's own"""
    width: Count | None
    """embedding dimension (timm: embed_dim); null: the model's own"""
    depth: Count | None
    """number of transformer blocks; null: the model's own"""
    heads: Count | None
    """number of attention heads; null: the model's own"""


def _tag(value: Any) -> str:
    if isinstance(value, Custom) or (isinstance(value, dict) and TARGET in value):
        return TARGET
    return "timm" if isinstance(value, TimmVit) or (isinstance(value, dict) and "name" in value) else "vit"


Model = Annotated[
    Annotated[Vit, Tag("vit")] | Annotated[TimmVit, Tag("timm")] | Annotated[Custom, Tag(TARGET)], Discriminator(_tag)
]


class Predictor(Section):
    """The predictor; it has the same number of attention heads as the encoder."""

    width: Width
    """embedding dimension (timm: embed_dim); a multiple of 4 and of model.heads"""
    depth: Depth
    """number of transformer blocks"""
    mlp_ratio: Ratio = 4.0  # this default is for runs older than the key
    """hidden width of the MLPs / width"""
    attention: Literal["joint", "cross"] = "joint"  # this default is for runs older than the key
    """joint: context and mask tokens attend to each other, as published; cross: mask tokens to the context only, which
    costs less"""
