"""What is minimised, and how."""

from typing import Annotated, Literal

from pydantic import Field

from ijepa.config.custom import Custom
from ijepa.config.fields import Count, Duration, Section, Weight


class CustomTerm(Custom):
    """A further term of the objective: an nn.Module of your own."""

    weight: Weight = 1.0
    """factor in the sum"""


class Objective(Section):
    """What is predicted and how far off it is."""

    distance: Literal["l2", "smooth_l1", "l1"]
    """squared L2 (paper), smooth L1 (reference code) or L1"""
    target: Literal["output", "input", "pixels"]
    """mask the target encoder's output (paper), its input (table 11), or predict normalised pixels (table 7)"""
    normalize_targets: bool
    """layer norm on the target encoder's output"""
    variance_weight: Weight
    """weight of the variance regulariser; 0 as published"""
    covariance_weight: Weight
    """weight of the covariance regulariser; 0 as published"""
    regularize: Literal["tokens", "context", "predictions"]
    """what they act on: the context's tokens, each beside those at its place; or pooled context or predictions"""

    terms: dict[str, CustomTerm] = Field(default_factory=dict)
    """further terms by name, each with _target_, weight and its options (docs/extending.md)"""


class Optimizer(Section):
    """AdamW; biases and 1-D parameters are not decayed."""

    lr: Annotated[float, Field(gt=0)]
    """peak learning rate"""
    lr_per_256: bool
    """multiply lr by data.batch_size / 256"""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    """decay rates of the moments"""
    eps: Annotated[float, Field(gt=0)]
    """added to the denominator"""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None
    """clip the gradient's norm; null as published"""


class LearningRate(Section):
    """The learning rate's schedule; start and end are factors of optimizer.lr."""

    shape: Literal["cosine", "linear", "constant", "cooldown"]
    """after the warm-up: towards end along a curve, constant, or constant with a linear cooldown"""
    start: Weight
    """factor at the start of the warm-up"""
    end: Weight
    """factor at the end of the run"""


class Curve(Section):
    """A value over the whole run."""

    shape: Literal["cosine", "linear", "constant"]
    """the curve from start to end; constant stays at start"""
    start: Weight
    """value at the first step"""
    end: Weight
    """value at the last step"""


class Momentum(Curve):
    """The target encoder's momentum."""

    start: Annotated[float, Field(ge=0, le=1)]
    """value at the first step"""
    end: Annotated[float, Field(ge=0, le=1)]
    """value at the last step"""


class Schedule(Section):
    """The run's length and what changes along it. Lengths in steps win over lengths in epochs."""

    epochs: Annotated[float, Field(gt=0)] | None
    """passes over the training images"""
    max_steps: Count | None
    """optimizer steps; wins over epochs"""
    warmup_epochs: Duration
    """length of the learning rate's linear warm-up"""
    warmup_steps: Annotated[int, Field(ge=0)] | None
    """the same in steps; wins over warmup_epochs"""
    cooldown_epochs: Duration
    """length of the final linear cooldown (learning_rate.shape=cooldown)"""
    cooldown_steps: Annotated[int, Field(ge=0)] | None
    """the same in steps; wins over cooldown_epochs"""
    learning_rate: LearningRate
    weight_decay: Curve
    momentum: Momentum
