"""An encoder together with what is needed to rebuild it and to normalise its input."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ijepa.models.encoder import Encoder
from ijepa.models.initialisation import Init
from ijepa.models.positions import Grid, Positions


@dataclass(frozen=True)
class Spec:
    """The description of an encoder, without its weights; see `Encoder`. ``eval_crop``: see `ijepa.data.images`."""

    image_size: tuple[int, int]
    patch_size: int
    channels: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    positions: Positions
    position_grid: Grid | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eval_crop: float = 1.0

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Spec":
        """Inverse of `plain`; validates values, because files may have been edited by hand.

        Raises:
            TypeError: on missing or unknown keys.
            ValueError: on impossible values.
        """
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        spec = cls(**arguments)
        for name, fits in spec._sound().items():
            if not fits:
                raise ValueError(f"{name}={arguments.get(name)} is not possible")
        return spec

    def _sound(self) -> dict[str, bool]:
        def whole(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and value >= 1

        def pair(value: Any) -> bool:
            return isinstance(value, tuple) and len(value) == 2 and all(map(whole, value))

        def numbers(value: Any, above: float) -> bool:
            return (
                isinstance(value, tuple)
                and len(value) == self.channels
                and all(isinstance(item, int | float) and above < item < math.inf for item in value)
            )

        sizes = {name: whole(getattr(self, name)) for name in ("patch_size", "channels", "width", "depth", "heads")}
        if not all(sizes.values()):
            return sizes
        return {
            "image_size": pair(self.image_size) and not any(side % self.patch_size for side in self.image_size),
            "heads": self.width % self.heads == 0,
            "width": self.width % 4 == 0,
            "mlp_ratio": isinstance(self.mlp_ratio, int | float) and 0 < self.mlp_ratio < math.inf,
            "positions": self.positions in get_args(Positions),
            "position_grid": self.position_grid is None or pair(self.position_grid),
            "mean": numbers(self.mean, -math.inf),
            "std": numbers(self.std, 0),
            "eval_crop": isinstance(self.eval_crop, int | float) and 0 < self.eval_crop <= 1,
        }

    def plain(self) -> dict[str, Any]:
        """Converted to plain containers, for JSON and checkpoints."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    def build(self, init: Init = "published") -> Encoder:
        """A newly initialised encoder."""
        return Encoder(
            self.image_size,
            self.patch_size,
            self.channels,
            self.width,
            self.depth,
            self.heads,
            self.mlp_ratio,
            self.positions,
            self.position_grid,
            init,
        )


class PretrainedEncoder(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to patch features [B, N, D]; it normalises images itself.

    For float images, values are in the units of ``spec.mean`` and ``spec.std``.

    Attributes:
        spec: sizes and normalisation.
        transform: maps an image from `ijepa.data.decode`, a PIL image or a tensor [C, H, W], to one input of forward
            (without B); set by `ijepa.load_encoder`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, spec: Spec) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec = spec
        self.transform: Any = None
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor, last: int = 1) -> Tensor:
        """Patch features [B, N, D * last]: the outputs of the ``last`` last blocks, concatenated."""
        features: Tensor = self.encoder((images - self.mean) / self.std, last=last)
        return features


def untrained(spec: Spec, seed: int) -> PretrainedEncoder:
    """A randomly initialised encoder of this shape, with computed position embeddings."""
    if spec.positions == "stored":
        spec = replace(spec, positions="index", position_grid=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretrainedEncoder(spec.build(), spec).eval()
