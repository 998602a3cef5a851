"""The networks."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.fields import Count, Section, Size


class Model(Section):
    """The encoder."""

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


class Predictor(Section):
    """The predictor; it has as many heads as the encoder."""

    width: Count
    """token width; a multiple of 4 and of model.heads"""
    depth: Count
    """transformer blocks"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0  # the default here: that of runs from before there was this key
    """hidden width of the MLPs over width"""
