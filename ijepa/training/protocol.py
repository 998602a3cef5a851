"""What a run needs of a LightningModule apart from its training step: see `ijepa.training.base`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from ijepa.masking import Masks
from ijepa.models.positions import Grid
from ijepa.models.pretrained import Spec
from ijepa.models.protocol import PatchEncoder


class Scheduled(Protocol):
    """A run's length, and AdamW's hyper-parameters in step 0, 1, ... of it; pure functions of the step."""

    @property
    def max_steps(self) -> int: ...

    @property
    def warmup_steps(self) -> int: ...

    @property
    def cooldown_steps(self) -> int:
        """Length of the final decay, if the run can be extended before it begins; 0 for other schedules."""

    def lr(self, step: int) -> float: ...

    def weight_decay(self, step: int) -> float: ...

    def values(self, step: int) -> dict[str, float]:
        """Everything that is scheduled, by the names that it is logged under."""


@dataclass(frozen=True)
class Execution:
    """How networks run, which changes what they compute by rounding at most; see `ijepa.distributed.sharding.prepare`.

    Attributes:
        bf16: compute in bf16; weights and optimiser stay float32.
        checkpointing: activation checkpointing of the trained blocks.
        compiled: torch.compile each block.
    """

    bf16: bool = False
    checkpointing: bool = False
    compiled: bool = False


class TrainedEncoder(NamedTuple):
    """An encoder within a module, with what is needed to rebuild it.

    which: ``target`` or ``context``.
    """

    which: str
    network: PatchEncoder
    spec: Spec

    @property
    def module(self) -> nn.Module:
        """The network as torch knows it."""
        assert isinstance(self.network, nn.Module)
        return self.network

    @property
    def title(self) -> str:
        """Its name in tables."""
        return f"{self.which} encoder"


class MonitorFlops(NamedTuple):
    """FLOPs of one image, forward: its features, and, beyond them, its predictions."""

    features: float
    predictions: float = 0.0


class Monitor(ABC):
    """What health checks and pictures see of a module, always on the same held-out images.

    Called without gradients, with all networks in eval mode; where weights are sharded, by every process.

    Attributes:
        grid: rows and columns of the patches that have features.
    """

    grid: Grid

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Patch features [B, N, D] of images [B, C, H, W] in 0..1 (float images: in their units), from any device."""

    @abstractmethod
    def flops(self, masks: Masks | None) -> MonitorFlops:
        """What that costs, with the masks of one image."""

    def predictions(self, images: Tensor, features: Tensor, masks: Masks) -> tuple[Tensor, Tensor] | None:
        """Predictions [B, T, K, D] and their targets; None: there are none to be watched.

        Args:
            images: as in `features`.
            features: of these.
            masks: of these; the same for each.
        """
        return None

    def measures(self) -> dict[str, float]:
        """Anything else that is measured, by the name it has after ``health/``."""
        return {}


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """All parts in eval mode; each returns to its own afterwards, a frozen network to eval mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
