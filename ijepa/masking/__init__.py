"""Context and target masks: multi-block (paper, section 3), rasterized, block and random (paper, table 6).

An image's masks depend only on (seed, step, position in the global batch), not on other images in the batch or on the
number of workers or ranks (except with `Reference`). Block sizes are drawn once per step, as published.
"""

from collections.abc import Callable

from ijepa.masking.common import Masking, Masks
from ijepa.masking.multiblock import MultiBlock
from ijepa.masking.reference import Reference
from ijepa.masking.simple import Random, Rasterized

SAMPLERS: dict[str, Callable[..., Masking]] = {
    "multiblock": MultiBlock,
    "rasterized": Rasterized,
    "random": Random,
    "reference": Reference,
}

__all__ = ["SAMPLERS", "Masking", "Masks", "MultiBlock", "Random", "Rasterized", "Reference"]
