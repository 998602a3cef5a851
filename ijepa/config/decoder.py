"""Configuration of the sketch decoder, which turns representations back into pictures."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ijepa.config.fields import NonNegative, Section
from ijepa.config.masking import Random as RandomMasks
from ijepa.config.model import Depth, Width
from ijepa.util.errors import ConfigError
from ijepa.util.sizes import memory_problem

if TYPE_CHECKING:
    from ijepa.config import TrainConfig

Prediction = Literal["v", "epsilon", "flow"]
Sampler = Literal["ddim", "dpm", "euler"]
SAMPLERS: dict[Prediction, tuple[Sampler, ...]] = {"v": ("ddim", "dpm"), "epsilon": ("ddim", "dpm"), "flow": ("euler",)}
"""The samplers of each kind of prediction, the default first."""
MLP_RATIO = 6.0
"""Hidden width of a block's MLP by its width: 4, and half of a cross-attention's weights."""


class Decoder(Section):
    """A diffusion decoder of the representations of frozen networks (paper, section 8)."""

    condition: Literal["prediction", "target", "image", "nothing"]
    """what it draws from: the predictor's output for a target block, the target encoder's output at that block or of
    the whole image; nothing: only the block's position, to compare with"""
    pooled: bool
    """draw from the average of the representation's patches, as in the paper; false: from all of them, each with its
    position"""
    untrained: bool
    """draw from networks of the checkpoint's sizes with random weights, to compare with"""
    shown: Literal["block", "image"]
    """draw the block alone, or the whole image, with the block's position known"""
    size: Annotated[int, Field(ge=8, le=512, strict=True)]
    """height and width of what it draws, in pixels"""
    patch_size: Annotated[int, Field(ge=1, le=64, strict=True)]
    """side of the patches of its diffusion transformer, in pixels of what it draws"""
    width: Width
    """embedding dimension of the transformer"""
    depth: Depth
    """blocks of the transformer"""
    heads: Annotated[int, Field(ge=1, le=1024, strict=True)]
    """attention heads"""
    predicts: Prediction
    """what the network predicts: the noise (epsilon), a mixture of noise and image (v), or the velocity of flow
    matching"""
    withheld: Annotated[float, Field(ge=0, lt=1)]
    """fraction of the training blocks whose representation it does not see, for guidance"""
    sampler: Sampler
    """how samples are drawn: DDIM or DPM-Solver++ for v and epsilon, Euler for flow"""
    steps: Annotated[int, Field(ge=1, le=500, strict=True)]
    """of the sampler"""
    guidance: NonNegative
    """how far samples are moved away from those without a representation; 1: not at all"""
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] | None
    """seed of the held-out part; null: that of the checkpoint's run, whose held-out images stay held out"""

    def check(self, config: "TrainConfig") -> None:
        """Checks combinations of values, also with the other sections of ``config``; raises ConfigError."""
        if config.optimizer.name != "adamw":
            raise ConfigError("optimizer", config.optimizer.name, "is for transformers' blocks; try adamw")
        if config.hardware.precision == "bf16-true":
            raise ConfigError("hardware.precision", "bf16-true", "rounds noise levels and positions; try bf16-mixed")
        if config.teacher is not None:
            problem = "is an encoder's, which a decoder's run does not train; try teacher=null"
            raise ConfigError("teacher", "{...}", problem)
        if isinstance(config.masking, RandomMasks):
            raise ConfigError("masking", "random", "has no blocks that could be drawn; try multiblock")
        if self.size % self.patch_size:
            tried = max(round(self.size / self.patch_size), 1) * self.patch_size
            problem = f"is not a multiple of decoder.patch_size={self.patch_size}; try {tried}"
            raise ConfigError("decoder.size", self.size, problem)
        unit = math.lcm(4, self.heads)
        if self.width % unit:
            problem = f"is not a multiple of 4 and of decoder.heads={self.heads}; try {-(-self.width // unit) * unit}"
            raise ConfigError("decoder.width", self.width, problem)
        too_large = memory_problem(self.width, self.depth, MLP_RATIO)
        if too_large is not None:
            raise ConfigError("decoder.width", self.width, too_large)
        if self.sampler not in SAMPLERS[self.predicts]:
            options = " or ".join(SAMPLERS[self.predicts])
            problem = f"does not sample from decoder.predicts={self.predicts}; try {options}"
            raise ConfigError("decoder.sampler", self.sampler, problem)
        if self.guidance != 1 and not self.withheld:
            problem = "needs a decoder that has seen images without representation; try 1, or decoder.withheld=0.1"
            raise ConfigError("decoder.guidance", self.guidance, problem)
