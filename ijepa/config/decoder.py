"""Configuration of the sketch decoder, which turns representations back into pictures."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.fields import Count, NonNegative, Section
from ijepa.config.model import Width
from ijepa.util.errors import ConfigError

SAMPLERS = {"epsilon": ("ddim", "dpm"), "v": ("ddim", "dpm"), "flow": ("euler",)}
"""The samplers of each kind of prediction, the default first."""


class Decoder(Section):
    """A diffusion decoder of the representations of frozen networks (paper, section 8)."""

    condition: Literal["prediction", "target", "image", "nothing"]
    """what it draws from: the predictor's output for a target block, the target encoder's output at that block or of
    the whole image, each average-pooled; nothing: only the block's place, to compare with"""
    shown: Literal["block", "image"]
    """draw the block alone, or the whole image, with the block's place known"""
    size: Annotated[int, Field(ge=8, le=512, strict=True)]
    """height and width of what it draws, in pixels; divisible by 2 as often as there are further widths"""
    widths: Annotated[list[Width], Field(min_length=1, max_length=8)]
    """channels of its U-Net at each resolution, from the finest; each further one halves the resolution"""
    layers: Count
    """layers of each resolution"""
    predicts: Literal["v", "epsilon", "flow"]
    """what the network predicts: the noise (epsilon), a mixture of noise and image (v), or the velocity of flow
    matching"""
    withheld: Annotated[float, Field(ge=0, lt=1)]
    """part of the training images whose representation it does not see, for guidance"""
    sampler: Literal["ddim", "dpm", "euler"]
    """how samples are drawn: DDIM or DPM-Solver++ for v and epsilon, Euler for flow"""
    steps: Count
    """of the sampler"""
    guidance: NonNegative
    """how far samples are moved away from those without a representation; 1: not at all"""

    def check(self) -> None:
        """Checks combinations of values; raises ConfigError."""
        halvings = len(self.widths) - 1
        if self.size % 2**halvings:
            tried = -(-self.size // 2**halvings) * 2**halvings
            problem = f"cannot be halved {halvings} times, as decoder.widths asks; try {tried}"
            raise ConfigError("decoder.size", self.size, problem)
        if self.sampler not in SAMPLERS[self.predicts]:
            options = " or ".join(SAMPLERS[self.predicts])
            problem = f"does not sample from decoder.predicts={self.predicts}; try {options}"
            raise ConfigError("decoder.sampler", self.sampler, problem)
        if self.guidance != 1 and not self.withheld:
            problem = "needs a decoder that has seen images without representation; try 1, or decoder.withheld=0.1"
            raise ConfigError("decoder.guidance", self.guidance, problem)
