"""Configuration of the sketch decoder, which turns representations back into pictures."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ijepa.config.fields import NonNegative, Section
from ijepa.config.masking import Random as RandomMasks
from ijepa.config.model import Width
from ijepa.util.errors import ConfigError

if TYPE_CHECKING:
    from ijepa.config import TrainConfig

Prediction = Literal["v", "epsilon", "flow"]
Sampler = Literal["ddim", "dpm", "euler"]
SAMPLERS: dict[Prediction, tuple[Sampler, ...]] = {"v": ("ddim", "dpm"), "epsilon": ("ddim", "dpm"), "flow": ("euler",)}
"""The samplers of each kind of prediction, the default first."""


class Decoder(Section):
    """A diffusion decoder of the representations of frozen networks (paper, section 8)."""

    condition: Literal["prediction", "target", "image", "nothing"]
    """what it draws from: the predictor's output for a target block, the target encoder's output at that block or of
    the whole image, each average-pooled; nothing: only the block's position, to compare with"""
    shown: Literal["block", "image"]
    """draw the block alone, or the whole image, with the block's position known"""
    size: Annotated[int, Field(ge=8, le=512, strict=True)]
    """height and width of what it draws, in pixels; divisible by 2 as often as there are further widths"""
    widths: Annotated[list[Width], Field(min_length=1, max_length=8)]
    """channels of its U-Net at each resolution, from the finest; each further one halves the resolution"""
    layers: Annotated[int, Field(ge=1, le=16, strict=True)]
    """layers of each resolution"""
    predicts: Prediction
    """what the network predicts: the noise (epsilon), a mixture of noise and image (v), or the velocity of flow
    matching"""
    withheld: Annotated[float, Field(ge=0, lt=1)]
    """fraction of the training images whose representation it does not see, for guidance"""
    sampler: Sampler
    """how samples are drawn: DDIM or DPM-Solver++ for v and epsilon, Euler for flow"""
    steps: Annotated[int, Field(ge=1, le=500, strict=True)]
    """of the sampler"""
    guidance: NonNegative
    """how far samples are moved away from those without a representation; 1: not at all"""

    def check(self, config: "TrainConfig") -> None:
        """Checks combinations of values, also with the other sections of ``config``; raises ConfigError."""
        if config.optimizer.name != "adamw":
            raise ConfigError("optimizer", config.optimizer.name, "is for transformers' blocks; try adamw")
        if config.teacher is not None:
            problem = "is an encoder's, which a decoder's run does not train; try teacher=null"
            raise ConfigError("teacher", "{...}", problem)
        if isinstance(config.masking, RandomMasks):
            raise ConfigError("masking", "random", "has no blocks that could be drawn; try multiblock")
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
