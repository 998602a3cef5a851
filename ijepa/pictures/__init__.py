"""Figures: pure functions from tensors to matplotlib figures, for W&B, TensorBoard and files alike."""

from ijepa.pictures.features import components
from ijepa.pictures.masks import masks
from ijepa.pictures.results import classes, depths, neighbours
from ijepa.pictures.sheet import HIDDEN, rgb, write

__all__ = ["HIDDEN", "classes", "components", "depths", "masks", "neighbours", "rgb", "write"]
