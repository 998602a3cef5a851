"""Configuration of objective, optimiser and schedules."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.custom import Custom
from ijepa.config.fields import Count, CountOrZero, NonNegative, Positive, Scale, Section, check_width
from ijepa.config.model import Depth, Width
from ijepa.util.errors import ConfigError
from ijepa.util.sizes import MAX_DEPTH


class CustomTerm(Custom):
    """An additional term of the objective: an nn.Module of your own."""

    weight: NonNegative = 1.0
    """factor of the term in the objective"""


class Objective(Section):
    """The targets, the distance to them, and regularisers."""

    distance: Literal["l2", "smooth_l1", "l1"]
    """squared L2 (paper), smooth L1 (reference code) or L1"""
    target: Literal["output", "input", "pixels"]
    """mask the target encoder's output (paper) or its input (table 11), or predict normalised pixels (table 7)"""
    normalize_targets: bool
    """layer norm on the target encoder's output"""
    target_depths: (
        Annotated[list[Annotated[int, Field(ge=0, le=MAX_DEPTH, strict=True)]], Field(min_length=1)] | None
    ) = None
    """predict the outputs of these blocks of the target encoder together (0: its patch embedding); null: the last"""
    standardize_targets: bool = False
    """subtract each position's mean from the targets and scale their dimensions to unit variance (running averages)"""
    renormalize_targets: bool = False
    """layer norm on the standardised targets, so that every patch counts alike, as with normalised pixels"""
    teacher: str | None = None
    """a run's folder or weights: a frozen encoder, of any width, whose features are predicted; null: the moving average
    of the encoder that is trained (paper)"""
    distance_weight: NonNegative = 1.0
    """weight of the distance; 0: regularisers and terms of your own alone, to see what the prediction adds"""
    pixel_weight: NonNegative = 0.0
    """weight of the distance to normalised pixels, predicted beside the target encoder's output; 0: no pixels"""
    variance_weight: NonNegative
    """weight of the variance regulariser; published: 0"""
    covariance_weight: NonNegative
    """weight of the covariance regulariser; published: 0"""
    regularize: Literal["tokens", "context", "predictions"]
    """what is regularised: tokens: variance over the batch at each patch position of the context; context,
    predictions: their average-pooled features"""

    terms: dict[str, CustomTerm] = Field(default_factory=dict)
    """additional terms by name, each with _target_, weight and its options (docs/extending.md)"""


class TeacherRun(Section):
    """A small vision transformer, trained on pixels before the run itself; all else is as in the run."""

    length: Positive
    """its steps, as a multiple of the run's"""
    lr: Positive
    """its peak learning rate"""
    width: Width
    """its embedding dimension; a multiple of 4 and of heads"""
    depth: Depth
    """its number of transformer blocks"""
    heads: Count
    """its number of attention heads; must divide width and predictor_width"""
    predictor_width: Width
    """embedding dimension of its predictor"""

    def check(self, objective: Objective) -> None:
        """Checks what would otherwise fail only after its training; raises ConfigError."""
        if objective.target != "output":
            problem = "is not used with a teacher; try teacher=null, or objective.target=output"
            raise ConfigError("objective.target", objective.target, problem)
        if objective.teacher is not None:
            problem = "a teacher is trained already, as configured by teacher; try null, or teacher=null"
            raise ConfigError("objective.teacher", objective.teacher, problem)
        for name in ("width", "predictor_width"):
            check_width(f"teacher.{name}", getattr(self, name), self.heads, "teacher.heads")
        depths = objective.target_depths
        if depths is not None and (depths != sorted(set(depths)) or depths[-1] > self.depth):
            problem = f"must ascend, and be at most teacher.depth={self.depth}; try [{self.depth}]"
            raise ConfigError("objective.target_depths", depths, problem)


class Optimizer(Section):
    """AdamW or Muon; no weight decay for biases and 1-D parameters."""

    name: Literal["adamw", "muon"] = "adamw"  # this default is for runs older than the key
    """adamw; or muon: Muon on the matrices of transformer blocks, AdamW on all else; for both the same lr"""
    lr: Positive
    """peak learning rate"""
    lr_per_256: bool
    """multiply lr by data.batch_size / 256"""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    """AdamW's betas: decay rates of the moments"""
    eps: Scale
    """AdamW's epsilon, added to the denominator"""
    clip_grad_norm: Scale | None
    """maximum gradient norm; null: no clipping, as published"""


class LearningRate(Section):
    """The learning rate's schedule; start and end are factors of optimizer.lr."""

    shape: Literal["cosine", "linear", "constant", "cooldown"]
    """after warm-up: decay to end (cosine, linear), constant, or constant with a final linear cooldown"""
    start: NonNegative
    """factor at the start of the warm-up"""
    end: NonNegative
    """factor at the end of the run"""


class Curve(Section):
    """The schedule of a value over the whole run."""

    shape: Literal["cosine", "linear", "constant"]
    """curve from start to end; constant: stays at start"""
    start: NonNegative
    """value at the first step"""
    end: NonNegative
    """value at the last step"""


class Momentum(Curve):
    """The EMA momentum: how much of the target encoder's weights each step keeps."""

    start: Annotated[float, Field(ge=0, le=1)]
    """EMA momentum at the first step"""
    end: Annotated[float, Field(ge=0, le=1)]
    """EMA momentum at the last step"""


class Schedule(Section):
    """The run's length, and schedules over it. Lengths in steps take precedence over lengths in epochs."""

    epochs: Positive | None
    """passes over the training images"""
    max_steps: Count | None
    """optimiser steps; takes precedence over epochs"""
    warmup_epochs: NonNegative
    """length of the learning rate's linear warm-up"""
    warmup_steps: CountOrZero | None
    """the same in steps; takes precedence over warmup_epochs"""
    cooldown_epochs: NonNegative
    """length of the final linear cooldown (learning_rate.shape=cooldown)"""
    cooldown_steps: CountOrZero | None
    """the same in steps; takes precedence over cooldown_epochs"""
    learning_rate: LearningRate
    weight_decay: Curve
    momentum: Momentum
