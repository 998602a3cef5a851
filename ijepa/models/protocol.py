"""What training, evaluation and export need of an encoder."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ijepa.models.positions import Grid


@runtime_checkable
class PatchEncoder(Protocol):
    """A module from images to features of their patches.

    Optional: ``blocks``, an `nn.ModuleList`. Blocks are checkpointed, compiled and sharded one by one, and fine-tuned
    with learning rates of their own; an encoder without them is handled as a whole. ``heads``: attention heads, which
    the predictor has as many of.

    Attributes:
        width: D, of the features.
        depth: blocks whose outputs `forward` can return.
    """

    width: int
    depth: int

    def grid_of(self, height: int, width: int) -> Grid:
        """Patches per column and per row of an image of this size; raises ValueError for one that does not divide."""

    def forward(
        self, images: Tensor, indices: Tensor | None = None, valid: Tensor | None = None, last: int = 1
    ) -> Tensor:
        """Features of all patches, or of the patches at ``indices``, which then attend only to each other.

        Args:
            images: [B, C, H, W], normalised.
            indices: [B, N'] or [B, T, K], patch indices in row-major order.
            valid: [B, N'], False for padding, which is masked in attention.
            last: how many of the last blocks' outputs to concatenate.

        Returns:
            [B, N, D * last]; with indices [B, N', D * last] or [B, T, K, D * last].
        """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As `forward`; every `nn.Module` has it, and what follows."""

    def state_dict(self) -> dict[str, Any]:
        """The weights."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Loads the weights."""


def blocks_of(network: PatchEncoder | nn.Module) -> list[nn.Module]:
    """The blocks of a network, which may have none."""
    found = getattr(network, "blocks", None)
    return list(found) if isinstance(found, nn.ModuleList) else []
