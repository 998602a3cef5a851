"""Configuration of task=pictures."""

from typing import Annotated

from pydantic import Field

from ijepa.config.fields import Count, FileTaskSection, FractionalPoint
from ijepa.util.errors import ConfigError
from ijepa.util.sizes import MAX_DEPTH


class Pictures(FileTaskSection):
    """Pictures of what an encoder sees: principal components, similarity, attention, neighbours, masks, curves."""

    images: Count
    """images per picture, one per row: validation images, then training images if there are too few"""
    projected: Count
    """images, including those shown, for principal components and for the mean feature at each position"""
    queries: Annotated[list[FractionalPoint], Field(min_length=1, max_length=6)]
    """query patches that all others are compared with, as fractions of height and width: [0.5,0.5] is the middle; the
    first is also used for attention"""
    block: Annotated[int, Field(ge=-MAX_DEPTH, le=MAX_DEPTH)]
    """block whose attention is shown: 1 is the first, -1 the last"""
    heads: Count
    """maximum number of attention heads shown separately"""
    neighbours: Count
    """nearest neighbours per image"""

    def check(self, key: str, depth: int) -> None:
        if not 1 <= abs(self.block) <= depth:
            problem = f"the encoder has {depth} blocks; try 1 to {depth}, or -1 for the last"
            raise ConfigError(f"{key}.block", self.block, problem)
