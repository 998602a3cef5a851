"""The interface between a pretraining LightningModule and the run around it: schedule, exported encoders, features for
health checks. See `ijepa.training.base.TrainingModule`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor, nn

from ijepa.masking import Masks
from ijepa.models.positions import Grid
from ijepa.models.pretrained import Spec
from ijepa.models.protocol import PatchEncoder


class RunSchedule(Protocol):
    """A run's length, and the learning rate and weight decay of steps 0, 1, ...: pure functions of the step."""

    @property
    def max_steps(self) -> int: ...

    @property
    def warmup_steps(self) -> int: ...

    @property
    def cooldown_steps(self) -> int:
        """Length in steps of a ``cooldown`` schedule's final decay; 0 for other schedules.

        Such a run can be lengthened only until that decay begins.
        """

    def lr(self, step: int) -> float: ...

    def weight_decay(self, step: int) -> float: ...

    def values(self, step: int) -> dict[str, float]:
        """All scheduled values, by the names under which they are logged."""


@dataclass(frozen=True)
class Execution:
    """Compute options; none changes the mathematics, only the rounding. See `ijepa.distributed.sharding.prepare`.

    Attributes:
        bf16: compute in bf16; weights and optimiser stay float32.
        checkpointing: activation checkpointing of the blocks that are trained; ``selective``: results of matrix
            multiplications are kept.
        compiled: compile each block with torch.compile; ``networks``: each network as a whole.
    """

    bf16: bool = False
    checkpointing: bool | Literal["selective"] = False
    compiled: bool | Literal["networks"] = False


class Sketches(NamedTuple):
    """Pictures that a module has generated.

    Attributes:
        images: [B, C, H, W], whose representations were drawn.
        masks: theirs, with one target block each, [B, 1, K].
        drawn: [B, n, C, S, S], samples in the images' values.
        shown: whether a sample is of the block or of the whole image.
        patch_size: side of a patch in pixels.
    """

    images: Tensor
    masks: Masks
    drawn: Tensor
    shown: Literal["block", "image"]
    patch_size: int


class TrainedEncoder(NamedTuple):
    """An encoder of a LightningModule, and the spec from which it can be rebuilt.

    Attributes:
        which: ``target`` or ``context``.
        network: the encoder; `module` is the same object.
        spec: its architecture and normalisation.
    """

    which: str
    network: PatchEncoder
    spec: Spec

    @property
    def module(self) -> nn.Module:
        """`network` itself, typed as an `nn.Module`."""
        assert isinstance(self.network, nn.Module)
        return self.network

    @property
    def title(self) -> str:
        """The name in tables."""
        return f"{self.which} encoder"


class MonitorFlops(NamedTuple):
    """FLOPs per image of `Monitor.features`, and the *additional* ones of `Monitor.predictions`."""

    features: float
    predictions: float = 0.0


class Monitor(ABC):
    """A module's features and predictions, from which health checks and pictures are made.

    Callbacks call it on the same held-out images throughout the run, without gradients and with all networks in eval
    mode. With sharded weights, every process must call it.

    Attributes:
        grid: rows and columns of the feature map: N = rows x columns.
    """

    grid: Grid

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Patch features [B, N, D].

        ``images`` [B, C, H, W] may be on any device and are not normalised: values in 0..1, or in the data set's own
        units if it stores floats.
        """

    @abstractmethod
    def flops(self, masks: Masks | None) -> MonitorFlops:
        """FLOPs per image; ``masks``: those of one image, None if the module uses no masks."""

    def predictions(self, images: Tensor, features: Tensor, masks: Masks) -> tuple[Tensor, Tensor] | None:
        """Predictions and targets, both [B, T, K, D]; None: the health checks leave predictions out.

        Args:
            images: [B, C, H, W], as in `features`.
            features: [B, N, D], what `features` returned for these images, so that they need not be computed again.
            masks: of these B images; every image has the same masks.
        """
        return None

    def measures(self) -> dict[str, float]:
        """Further scalars to log as ``health/NAME``, by NAME."""
        return {}


class DecoderMonitor(ABC):
    """A decoder's losses on held-out images, from which its health checks are made; see `Monitor`.

    Attributes:
        withheld: whether the decoder is also trained without the representation.
        conditioned: whether there is one.
    """

    withheld: bool
    conditioned: bool

    @abstractmethod
    def losses(self, images: Tensor, masks: Masks) -> dict[str, Tensor]:
        """The mean loss at each of `ijepa.training.specs.NOISE_LEVELS`, with the same noise: ``own``, with the image's
        own representation; ``another``, with another image's of the same block; ``none``, without.

        Args:
            images: [B, C, H, W], as in `Monitor.features`.
            masks: of these B images; every image has the same masks.
        """

    @abstractmethod
    def flops(self, masks: Masks) -> float:
        """FLOPs per image of `losses`; ``masks``: those of one image."""


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Puts ``module`` into eval mode; afterwards each submodule returns to the mode that it had."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for submodule, mode in modes.items():
            submodule.training = mode
