"""Which pictures task=pictures draws."""

from typing import Annotated

from pydantic import Field

from ijepa.config.fields import Count, FractionalPoint, TaskSection
from ijepa.util.errors import ConfigError


class Pictures(TaskSection):
    """What an encoder sees: principal components, similarity, attention, neighbours, masks, learning curves."""

    images: Count
    """rows of the pictures; images for validation, and for training where those are fewer"""
    projected: Count
    """images, those among them, whose patches make the principal components and the mean at each place"""
    queries: Annotated[list[FractionalPoint], Field(min_length=1, max_length=6)]
    """patches that all others are compared with: shares of the height and width, [0.5,0.5] the middle; attention is
    shown from the first"""
    block: int
    """whose attention is shown, 1 the first; or from the last one back, -1"""
    heads: Count
    """at most so many are shown one by one, the first ones"""
    neighbours: Count
    """nearest images of an image"""
    batch_size: Count
    """images per forward pass"""

    def check(self, key: str, depth: int) -> None:
        if not 1 <= abs(self.block) <= depth:
            problem = f"the encoder has {depth} blocks; 1 to {depth}, or -1 for the last, would do"
            raise ConfigError(f"{key}.block", self.block, problem)
