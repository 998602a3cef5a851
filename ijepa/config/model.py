"""The networks."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ijepa.config.custom import TARGET, Custom
from ijepa.config.fields import Count, Section, Size, Text


class Vit(Section):
    """I-JEPA's vision transformer."""

    patch_size: Count
    """side of a patch in pixels; divides data.image_size"""
    width: Count
    """token width D; a multiple of 4 and of heads"""
    depth: Count
    """transformer blocks"""
    heads: Count
    """attention heads; divides width (the predictor's too)"""
    mlp_ratio: Annotated[float, Field(gt=0)]
    """hidden width of the MLPs over width"""
    positions: Literal["index", "scaled", "stored"]
    """sin-cos of patch indices (index, as published) or mapped onto position_grid (scaled); init's own (stored)"""
    position_grid: Size | None
    """rows and columns of the grid that scaled or stored positions refer to; null for this run's own"""
    init: Literal["published", "reference"]
    """initial weights: as published, or without the depth-wise rescaling that the reference code undoes"""
    registers: Annotated[int, Field(ge=0, strict=True)] = 0
    """register tokens, which patches attend to; never among the features"""


class TimmVit(Section):
    """A VisionTransformer of timm."""

    name: Text
    """timm's, vit_small_patch16_224 for example; with or without class and register tokens"""
    pretrained: bool
    """start from timm's weights, which are downloaded once"""
    patch_size: Count | None
    """side of a patch in pixels; divides data.image_size; null: as the name says"""
    width: Count | None
    """token width; null: as the name says"""
    depth: Count | None
    """transformer blocks; null: as the name says"""
    heads: Count | None
    """attention heads; null: as the name says"""


def _tag(value: Any) -> str:
    if isinstance(value, Custom) or (isinstance(value, dict) and TARGET in value):
        return TARGET
    return "timm" if isinstance(value, TimmVit) or (isinstance(value, dict) and "name" in value) else "vit"


Model = Annotated[
    Annotated[Vit, Tag("vit")] | Annotated[TimmVit, Tag("timm")] | Annotated[Custom, Tag(TARGET)], Discriminator(_tag)
]


class Predictor(Section):
    """The predictor; it has as many heads as the encoder."""

    width: Count
    """token width; a multiple of 4 and of model.heads"""
    depth: Count
    """transformer blocks"""
