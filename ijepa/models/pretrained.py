"""An encoder together with what is needed to rebuild it and to normalise its input."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ijepa.models.custom import custom_encoder
from ijepa.models.encoder import Encoder
from ijepa.models.initialisation import Init
from ijepa.models.positions import Grid, Positions
from ijepa.models.protocol import PatchEncoder
from ijepa.models.timm_vit import TIMM_ARGUMENTS, TimmEncoder
from ijepa.util.errors import one_line
from ijepa.util.sizes import MAX_DEPTH, MAX_PATCHES, MAX_PIXELS, MAX_SIDE, MAX_WIDTH, memory_problem

Kind = Literal["vit", "timm", "custom"]
OPTIONAL: dict[str, Any] = {"registers": 0, "kind": "vit", "name": "", "options": {}, "init": "published"}
"""Values that files omit, because older files do not have these keys."""
VIT_ONLY: dict[str, Any] = {"mlp_ratio": 4.0, "positions": "stored", "position_grid": None}
"""Fields that only I-JEPA's ViT has; other encoders' descriptions have these values, and their files omit them."""

SPEC_KEY = "ijepa_encoder"
"""Metadata key of the encoder's description."""
DECODER_KEY = "ijepa_decoder"
"""Of a decoder's checkpoint: how its networks are built."""


@dataclass(frozen=True)
class Spec:
    """The description of an encoder: everything but its weights. See `Encoder`; ``eval_crop``: see `EvalTransform`.

    ``kind``: ``vit`` is I-JEPA's ViT, ``timm`` timm's model ``name``, ``custom`` the user's class ``name``; the last
    two are built with ``options``. ``mean`` and ``std``: normalisation, one value per channel.
    ``init``: the initial weights, to compare the encoder with an untrained one; only of I-JEPA's ViT.
    """

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
    registers: int = 0
    kind: Kind = "vit"
    name: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    init: Init = "published"

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Spec":
        """The inverse of `plain`; validates values, because files may have been edited by hand.

        Raises:
            TypeError: if a key is missing or unknown.
            ValueError: if a value is invalid.
        """
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if arguments.get("kind", "vit") != "vit":
            arguments = {**VIT_ONLY, **arguments}
        spec = cls(**arguments)
        for name, fits in spec._validity().items():
            if not fits:
                raise ValueError(one_line(f"{name}={arguments.get(name)} is not possible"))
        return spec

    def _validity(self) -> dict[str, bool]:
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

        most = {"patch_size": MAX_SIDE, "depth": MAX_DEPTH} | dict.fromkeys(("channels", "width", "heads"), MAX_WIDTH)
        sizes = {name: whole(getattr(self, name)) and getattr(self, name) <= limit for name, limit in most.items()}
        if not all(sizes.values()):
            return sizes
        return {
            "image_size": pair(self.image_size)
            and not any(side % self.patch_size for side in self.image_size)
            and math.prod(self.image_size) * self.channels <= MAX_PIXELS
            and math.prod(self.grid) <= MAX_PATCHES,
            "kind": self.kind in get_args(Kind),
            "name": isinstance(self.name, str) and bool(self.name) == (self.kind != "vit"),
            "options": isinstance(self.options, dict)
            and (self.kind != "timm" or self.options.keys() <= TIMM_ARGUMENTS.keys()),
            "heads": self.kind != "vit" or self.width % self.heads == 0,
            "mlp_ratio": isinstance(self.mlp_ratio, int | float) and 0 < self.mlp_ratio < MAX_WIDTH,
            "width": self.kind != "vit"
            or (self.width % 4 == 0 and memory_problem(self.width, self.depth, self.mlp_ratio) is None),
            "positions": self.positions in get_args(Positions),
            "position_grid": self.position_grid is None or pair(self.position_grid),
            "mean": numbers(self.mean, -math.inf),
            "std": numbers(self.std, 0),
            "eval_crop": isinstance(self.eval_crop, int | float) and 0 < self.eval_crop <= 1,
            "registers": self.registers == 0 or (whole(self.registers) and self.registers <= MAX_DEPTH),
            "init": self.init in get_args(Init),
        }

    def plain(self) -> dict[str, Any]:
        """As plain containers, for JSON and checkpoints; `OPTIONAL` and `VIT_ONLY` values are omitted."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        left_out = OPTIONAL if self.kind == "vit" else {**OPTIONAL, **VIT_ONLY}
        return {name: value for name, value in values.items() if name not in left_out or value != left_out[name]}

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    def build(self, pretrained: bool = False) -> PatchEncoder:
        """A newly initialised encoder; with timm's weights if it is timm's and ``pretrained``.

        Raises:
            ConfigError: if timm's model or the user's class does not exist.
        """
        if self.kind == "timm":
            size, patch = self.image_size, self.patch_size
            return TimmEncoder(self.name, size, patch, self.channels, self.options, pretrained)
        if self.kind == "custom":
            return custom_encoder(self.name, self.options, self.image_size, self.patch_size, self.channels)
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
            self.init,
            self.registers,
        )


class PretrainedEncoder(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to patch features [B, N, D]; it normalises images itself.

    Float images are in the units of ``spec.mean`` and ``spec.std`` instead of 0..1.

    Attributes:
        spec: sizes and normalisation.
        transform: maps a PIL image or a tensor [C, H, W] (see `ijepa.data.decode`) to an input [C, H, W] of forward;
            set by `ijepa.load_encoder`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: PatchEncoder, spec: Spec) -> None:
        super().__init__()
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder
        self.spec = spec
        self.transform: Any = None
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor, last: int = 1) -> Tensor:
        """Patch features [B, N, D * last]: the outputs of the ``last`` last blocks, concatenated."""
        features: Tensor = self.encoder((images - self.mean) / self.std, last=last)
        return features


def untrained_encoder(spec: Spec, seed: int) -> PretrainedEncoder:
    """A randomly initialised encoder of this shape, in eval mode; stored position embeddings become sin-cos ones."""
    if spec.kind == "vit" and spec.positions == "stored":
        spec = replace(spec, positions="index", position_grid=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretrainedEncoder(spec.build(), spec).eval()
