"""The contents of a weights file of any format: state dicts under this project's names, and their description."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ijepa.interop.state_dict import check_state_dict
from ijepa.models.encoder import Encoder
from ijepa.models.jepa import JEPA
from ijepa.models.positions import Grid, Positions, sincos_2d
from ijepa.models.predictor import Attention, Predictor
from ijepa.models.pretrained import DECODER_KEY as DECODER_KEY
from ijepa.models.pretrained import SPEC_KEY as SPEC_KEY
from ijepa.models.pretrained import Spec
from ijepa.util.paths import CONF
from ijepa.util.sizes import MAX_PATCHES

State = dict[str, Tensor]
Which = Literal["target", "context"]
PUBLISHED_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}
"""Number of attention heads of the published sizes, by width (paper, appendix A.1, and reference code)."""
FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
"""Tolerance between stored and computed position embeddings: in float32, and in half precision."""


WRAPPER_PREFIXES = r"^((module|_orig_mod)\.)+"
"""Name prefixes of DistributedDataParallel and torch.compile."""


class HeadsError(ValueError):
    """The number of attention heads is unknown."""


@dataclass(frozen=True)
class Weights:
    """Networks read from a file; `check` compares every tensor with the description.

    Attributes:
        form: the file's format, for messages.
        spec: description of the encoders.
        encoders: state dicts by ``target`` and ``context``; the key None is an encoder that is used for either.
        predictor: state dict; None if the file has none.
        notes: what was inferred or omitted, one line each.
        facts: other information in the file, such as the step.
    """

    form: str
    spec: Spec
    encoders: dict[Which | None, State]
    predictor: State | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def encoder(self, which: Which) -> State | None:
        """The state dict of the target or context encoder; None if the file does not have it."""
        return self.encoders.get(which, self.encoders.get(None))

    @property
    def predictor_sizes(self) -> "PredictorSizes":
        """The sizes of the predictor, which must not be None."""
        assert self.predictor is not None
        return predictor_sizes(self.predictor)

    def networks(self) -> JEPA:
        """The three networks with these weights, none of which may be missing."""
        predictor = self.predictor_sizes.build(self.spec)
        jepa = JEPA(self.spec.build(), predictor)
        for network, state in ((jepa.context_encoder, self.encoder("context")), (predictor, self.predictor),
                               (jepa.target_encoder, self.encoder("target"))):  # fmt: skip
            assert state is not None
            network.load_state_dict(state)
        return jepa

    def check(self) -> "Weights":
        """Returns self; raises ValueError if tensors are missing, unexpected, or of another shape than described."""
        if not set(self.encoders) <= {"target", "context", None}:
            raise ValueError(f"expected a target or context encoder, found {next(iter(self.encoders))}")
        with torch.device("meta"):
            expected = self.spec.build().state_dict()
        for which, state in self.encoders.items():
            check_state_dict(state, expected, f"{which} encoder" if which else "encoder")
        if self.predictor is not None:
            sizes = self.predictor_sizes
            if sizes.width % self.spec.heads:
                raise ValueError(f"its predictor's width {sizes.width} is not a multiple of {self.spec.heads} heads")
            with torch.device("meta"):
                expected = sizes.build(self.spec).state_dict()
            check_state_dict(self.predictor, expected, "predictor")
        return self


class PredictorSizes(NamedTuple):
    """Sizes of a predictor; see `Predictor`."""

    width: int
    depth: int
    output_width: int
    mlp_ratio: float
    attention: Attention

    def build(self, spec: Spec) -> Predictor:
        """A predictor of these sizes for the encoder that ``spec`` describes."""
        return Predictor(spec.width, self.output_width, spec.grid, self.width, self.depth, spec.heads, self.mlp_ratio,
                         spec.positions, spec.position_grid, attention=self.attention)  # fmt: skip


def encoder_sizes(state: State, heads: int | None) -> dict[str, Any]:
    """An encoder's sizes, inferred from shapes: patch_size, channels, width, depth, heads, mlp_ratio and registers.

    Args:
        state: an encoder's state dict, under this project's names.
        heads: number of attention heads; None: as for the published size.

    Raises:
        HeadsError: if the width is not a published one and ``heads`` is None.
        ValueError: if a tensor needed for this is missing, patches are not square, or ``heads`` does not fit the width.
    """
    try:
        width, channels, *patch = state["patch_embed.proj.weight"].shape
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} is missing") from None
    if len(patch) != 2 or patch[0] != patch[1]:
        raise ValueError(f"patch_embed.proj.weight is for patches of {'x'.join(map(str, patch))}; they must be square")
    head_count = heads or PUBLISHED_HEADS.get(width)
    if head_count is None:
        raise HeadsError(
            f"its width {width} is not a published one, and the number of attention heads cannot be read from weights"
        )
    if not isinstance(head_count, int) or head_count < 1 or width % head_count or width % 4:
        raise ValueError(f"its width {width} is not a multiple of 4 and of {head_count} heads")
    return {
        "patch_size": patch[0],
        "channels": channels,
        "width": width,
        "depth": count_blocks(state),
        "heads": head_count,
        "mlp_ratio": hidden / width,
        "registers": state["reg_token"].shape[1] if "reg_token" in state else 0,
    }


def predictor_sizes(state: State) -> PredictorSizes:
    """Infers the predictor's sizes from shapes; raises ValueError if a tensor is missing."""
    try:
        width, hidden = state["embed.weight"].shape[0], state["blocks.0.mlp.fc1.weight"].shape[0]
        attention: Attention = "cross" if "blocks.0.attn.kv.weight" in state else "joint"
        return PredictorSizes(width, count_blocks(state), state["proj.weight"].shape[0], hidden / width, attention)
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} of the predictor is missing") from None


def count_blocks(state: State) -> int:
    """The number of blocks, from the numbers in parameter names."""
    return 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)


class PositionLayout(NamedTuple):
    """The parameters of a table of position embeddings; see `ijepa.models.positions`."""

    grid: Grid
    positions: Positions
    position_grid: Grid | None


def recognise_sincos(table: Tensor) -> PositionLayout:
    """Recognises sin-cos position embeddings [1, N, D] or [N, D]: their grid, and the grid they are scaled to.

    Every grid with N patches is tried; for scaled ones, the first patch's embedding determines the reference grid.

    Raises:
        ValueError: if the position embeddings are not sin-cos, for example learnt.
    """
    table = table.reshape(-1, table.shape[-1])
    if len(table) > MAX_PATCHES:
        raise ValueError(f"its position embeddings are for {len(table)} patches, more than {MAX_PATCHES}")
    table = table.float()
    rounded = any(torch.equal(table.to(kind).float(), table) for kind in (torch.bfloat16, torch.float16))
    tolerance = HALF_TOLERANCE if rounded else FLOAT32_TOLERANCE
    patches, width = table.shape
    grids = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    for grid in sorted(grids, key=lambda shape: abs(shape[0] - shape[1])):
        reference = _reference_grid(table[0], grid)
        for kind, position_grid in (("index", None), ("scaled", reference)):
            if (kind == "index" or position_grid) and (
                sincos_2d(width, grid, position_grid) - table
            ).abs().max() < tolerance:
                return PositionLayout(grid, kind, position_grid if position_grid != grid else None)  # type: ignore[arg-type]
    raise ValueError(
        "its position embeddings (pos_embed) are learnt or fine-tuned, not the fixed sin-cos ones of I-JEPA"
    )


def _reference_grid(first: Tensor, grid: Grid) -> Grid | None:
    """The reference grid, from the first patch's coordinates, which are (reference / grid - 1) / 2 along each axis."""
    quarter = len(first) // 4
    slow = quarter // 4  # a low frequency, whose angle determines the turn of the exact first one
    sides = []
    for start, side in zip((2 * quarter, 0), grid, strict=True):  # rows are in the second half
        sine, cosine = first[start : start + quarter], first[start + quarter : start + 2 * quarter]
        exact, coarse = (torch.atan2(sine[i], cosine[i]).item() for i in (0, slow))
        turns = round((coarse * 10000 ** (slow / quarter) - exact) / math.tau)
        sides.append(round((2 * (exact + turns * math.tau) + 1) * side))
    return (sides[0], sides[1]) if min(sides) > 0 else None


STORED_NOTE = "its position embeddings are not sin-cos, but learnt or fine-tuned: kept as they are"


def recognise_positions(table: Tensor, grid: Grid | None = None) -> PositionLayout:
    """Like `recognise_sincos`, but all other position embeddings count as ``stored``, with ``grid`` or a square grid.

    Raises:
        ValueError: if their number matches neither grid.
    """
    try:
        return recognise_sincos(table)
    except ValueError as fault:
        patches = table.shape[-2]
        side = math.isqrt(patches)
        layout_grid = grid or (side, side)
        if layout_grid[0] * layout_grid[1] != patches:
            problem = f"{fault}; {patches} patches are not a square grid, so that rows and columns are unknown"
            raise ValueError(problem) from None
        return PositionLayout(layout_grid, "stored", None)


def build_spec(layout: PositionLayout, sizes: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]) -> Spec:
    """The description of an encoder with these position embeddings and sizes; the evaluation crop is ImageNet's."""
    rows, columns = layout.grid
    return Spec(
        image_size=(rows * sizes["patch_size"], columns * sizes["patch_size"]),
        **sizes,
        positions=layout.positions,
        position_grid=layout.position_grid,
        mean=mean,
        std=std,
        eval_crop=_load_option("data/_imagenet_crop").eval_crop,
    )


def assumed_statistics(channels: int) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str]:
    """The mean and std to assume if a file has none, and a note that says so."""
    if channels == 3:
        published = _load_option("data/_imagenet_statistics")
        return (
            tuple(published.mean),
            tuple(published.std),
        ), "it does not say how images are normalised: assumed ImageNet's mean and std, as published"
    note = f"it does not say how its images of {channels} channels are normalised: assumed not at all"
    return ((0.0,) * channels, (1.0,) * channels), note


def _load_option(name: str) -> DictConfig:
    """The contents of conf/``name``.yaml, the settings of the published encoders."""
    option = OmegaConf.load(CONF / f"{name}.yaml")
    assert isinstance(option, DictConfig)
    return option


def described_vit(description: dict[str, Any]) -> Spec:
    """The description in a file of a format that holds I-JEPA's ViT only; so that it names no other class.

    Raises:
        TypeError, ValueError: if it describes no such encoder.
    """
    spec = Spec.of(description)
    if spec.kind != "vit":
        raise ValueError(f"its {SPEC_KEY} describes a {spec.kind} encoder, which this format does not hold")
    return spec


def strip_prefixes(state: Mapping[str, Any]) -> State:
    """Removes `WRAPPER_PREFIXES` from names; raises ValueError for values that are not tensors."""
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is not a tensor")
    return {re.sub(WRAPPER_PREFIXES, "", name): tensor for name, tensor in state.items()}


def position_table(encoder: Encoder) -> Tensor:
    """The encoder's position embeddings [1, N, D], as other formats store them."""
    return encoder.position_embeddings(encoder.grid, torch.device("cpu"))[None].clone()
