"""The protocol of encoders for training, evaluation and export."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ijepa.models.positions import Grid


@runtime_checkable
class PatchEncoder(Protocol):
    """A module that maps images to features of their patches.

    Optional attributes: ``blocks``, an `nn.ModuleList` of blocks, which are checkpointed, compiled and sharded one by
    one, and fine-tuned with layer-wise learning rates; an encoder without them is handled as a whole. ``heads``, the
    number of attention heads; the predictor gets the same number.

    Attributes:
        width: embedding dimension D of the features.
        depth: number of blocks whose outputs `forward` can return.
    """

    width: int
    depth: int

    def grid_of(self, height: int, width: int) -> Grid:
        """Rows and columns of patches of an image; raises ValueError if patches do not divide its size."""

    def forward(
        self, images: Tensor, indices: Tensor | None = None, valid: Tensor | None = None, last: int = 1
    ) -> Tensor:
        """Features of all patches, or of the patches at ``indices``, which then attend only to each other.

        Args:
            images: [B, C, H, W], normalised.
            indices: [B, N'] or [B, T, K], patch indices in row-major order.
            valid: [B, N'], False for padding, which is masked in attention.
            last: number of last blocks whose outputs are concatenated.

        Returns:
            [B, N, D * last]; with indices [B, N', D * last] or [B, T, K, D * last].
        """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """As `forward`; this and the following methods are those of `nn.Module`."""

    def state_dict(self) -> dict[str, Any]:
        """The weights."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Loads the weights."""


def blocks_of(network: PatchEncoder | nn.Module) -> list[nn.Module]:
    """The network's blocks; [] if it has none."""
    blocks = getattr(network, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []
