"""Configuration of context and target masks."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from ijepa.config.custom import NAME_DISCRIMINATOR, TARGET, Custom
from ijepa.config.fields import Count, CountOrZero, Pair, Section
from ijepa.util.sizes import MAX_TARGETS


class MultiBlock(Section):
    """Several target blocks; one context block minus the targets (paper, section 3)."""

    name: Literal["multiblock"]
    """multi-block masks"""
    num_targets: Annotated[int, Field(ge=1, le=MAX_TARGETS, strict=True)]
    """target blocks per image"""
    target_scale: Pair
    """area of a target block, as a fraction of the grid of patches"""
    target_aspect: Pair
    """height / width of a target block"""
    context_scale: Pair
    """area of the context block, as a fraction of the grid"""
    context_patches: Count | None
    """context patches per image (surplus=keep: the minimum); null: about what the reference keeps on average"""
    surplus: Literal["drop", "keep"]
    """surplus context patches: drop them at random, or keep all, with padding and an attention mask"""


class Rasterized(Section):
    """One quadrant as context, the three others as targets (paper, table 6)."""

    name: Literal["rasterized"]
    """quadrants"""
    context_patches: Count | None
    """context patches per image; null: the whole quadrant"""


class Random(Section):
    """Patches drawn at random (paper, table 6)."""

    name: Literal["random"]
    """random patches"""
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """fraction of the patches that are targets"""
    context_patches: Count | None
    """context patches per image; null: all other patches"""


class Reference(Section):
    """The reference implementation's multi-block masks, bug for bug (docs/masking.md)."""

    name: Literal["reference"]
    """the reference implementation's sampler"""
    num_targets: Annotated[int, Field(ge=1, le=MAX_TARGETS, strict=True)]
    """target blocks per image"""
    target_scale: Pair
    """area of a target block, as a fraction of the grid of patches"""
    target_aspect: Pair
    """height / width of a target block"""
    context_scale: Pair
    """area of the context block, as a fraction of the grid"""
    min_keep: CountOrZero
    """masks must have more patches than this"""


Masking = Annotated[
    Annotated[MultiBlock, Tag("multiblock")]
    | Annotated[Rasterized, Tag("rasterized")]
    | Annotated[Random, Tag("random")]
    | Annotated[Reference, Tag("reference")]
    | Annotated[Custom, Tag(TARGET)],
    NAME_DISCRIMINATOR,
]
