"""Figures: pure functions from tensors to matplotlib figures, for W&B, TensorBoard and files."""

from ijepa.pictures.attention import attention
from ijepa.pictures.curves import compute, curves, read
from ijepa.pictures.features import (
    Colours,
    Components,
    colours,
    components,
    components_of,
    fine_grid,
    fine_scores,
    similarity,
    stretched,
)
from ijepa.pictures.masks import masks, outlines
from ijepa.pictures.results import classes, depths, neighbours, pairs
from ijepa.pictures.sheet import HIDDEN, Picture, rgb, write

__all__ = [
    "HIDDEN",
    "Colours",
    "Components",
    "Picture",
    "attention",
    "classes",
    "colours",
    "components",
    "components_of",
    "compute",
    "curves",
    "depths",
    "fine_grid",
    "fine_scores",
    "masks",
    "neighbours",
    "outlines",
    "pairs",
    "read",
    "rgb",
    "similarity",
    "stretched",
    "write",
]
