"""Configuration of the networks."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.fields import Count, Section, Size


class Model(Section):
    """The encoder."""

    patch_size: Count
    """side of a patch in pixels; must divide data.image_size"""
    width: Count
    """embedding dimension D (timm: embed_dim); a multiple of 4 and of heads"""
    depth: Count
    """number of transformer blocks"""
    heads: Count
    """number of attention heads; must divide width and predictor.width"""
    mlp_ratio: Annotated[float, Field(gt=0)]
    """hidden width of the MLPs / width"""
    positions: Literal["index", "scaled", "stored"]
    """position embeddings: sin-cos of patch indices (index, as published) or of positions on position_grid (scaled);
    or those of init= (stored)"""
    position_grid: Size | None
    """rows and columns of the grid that scaled or stored position embeddings refer to; null: this run's grid"""
    init: Literal["published", "reference"]
    """weight initialisation: as published, or without the depth-wise rescaling, which the reference code undoes"""


class Predictor(Section):
    """The predictor; it has as many attention heads as the encoder."""

    width: Count
    """embedding dimension (timm: embed_dim); a multiple of 4 and of model.heads"""
    depth: Count
    """number of transformer blocks"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0  # the default here: that of runs from before there was this key
    """hidden width of the MLPs over width"""
