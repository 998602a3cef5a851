"""The masks."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from ijepa.config.custom import BY_NAME, TARGET, Custom
from ijepa.config.fields import Count, Pair, Section


class MultiBlock(Section):
    """Several target blocks, one context block without them (paper, section 3)."""

    name: Literal["multiblock"]
    """multi-block masks"""
    num_targets: Count
    """target blocks per image"""
    target_scale: Pair
    """area of a target block, as a share of the grid of patches"""
    target_aspect: Pair
    """height / width of a target block"""
    context_scale: Pair
    """area of the context block, as a share of the grid"""
    context_patches: Count | None
    """context patches per image (surplus=keep: at least); null: about what the reference keeps on average"""
    surplus: Literal["drop", "keep"]
    """more context patches than that: drop some at random, or keep all, padded, with an attention mask"""


class Rasterized(Section):
    """One quadrant as context, the three others as targets (paper, table 6)."""

    name: Literal["rasterized"]
    """quadrants"""
    context_patches: Count | None
    """context patches per image; null: the whole quadrant"""


class Random(Section):
    """Patches drawn without structure (paper, table 6)."""

    name: Literal["random"]
    """random patches"""
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """share of the patches that are targets"""
    context_patches: Count | None
    """context patches per image; null: all the others"""


class Reference(Section):
    """The reference implementation's multi-block masks, bug for bug (docs/masking.md)."""

    name: Literal["reference"]
    """the reference implementation's sampler"""
    num_targets: Count
    """target blocks per image"""
    target_scale: Pair
    """area of a target block, as a share of the grid of patches"""
    target_aspect: Pair
    """height / width of a target block"""
    context_scale: Pair
    """area of the context block, as a share of the grid"""
    min_keep: Annotated[int, Field(ge=0)]
    """a mask needs more patches than this"""


Masking = Annotated[
    Annotated[MultiBlock, Tag("multiblock")]
    | Annotated[Rasterized, Tag("rasterized")]
    | Annotated[Random, Tag("random")]
    | Annotated[Reference, Tag("reference")]
    | Annotated[Custom, Tag(TARGET)],
    BY_NAME,
]
