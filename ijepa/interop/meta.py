"""The reference implementation's training checkpoints (`.pth.tar`)."""

from pathlib import Path
from typing import Any

from ijepa.interop.weights import (
    SPEC_KEY,
    State,
    Weights,
    assumed_statistics,
    build_spec,
    described_vit,
    encoder_sizes,
    position_table,
    recognise_sincos,
    strip_prefixes,
)
from ijepa.models.jepa import JEPA
from ijepa.models.positions import sincos_2d
from ijepa.models.pretrained import Spec
from ijepa.util.files import write_pickle

FORM = "a checkpoint of the reference implementation"
NETWORKS = ("encoder", "predictor", "target_encoder")
PREDICTOR_NAMES = {
    "embed.": "predictor_embed.",
    "mask_token": "mask_token",
    "blocks.": "predictor_blocks.",
    "norm.": "predictor_norm.",
    "proj.": "predictor_proj.",
}
POSITIONS, PREDICTOR_POSITIONS = "pos_embed", "predictor_pos_embed"
FACT_KEYS = ("epoch", "loss", "lr", "batch_size", "world_size")


def is_meta(contents: dict[str, Any]) -> bool:
    """Whether a loaded file has this layout, possibly with networks missing."""
    return any(isinstance(contents.get(name), dict) for name in NETWORKS)


def read(contents: dict[str, Any], heads: int | None = None) -> Weights:
    """The networks of a loaded checkpoint.

    Args:
        contents: the loaded file.
        heads: number of attention heads; None: as for the published size.

    Raises:
        ValueError: if a network or tensor is missing, or the networks do not match each other.
    """
    absent = [name for name in NETWORKS if not isinstance(contents.get(name), dict)]
    if absent:
        raise ValueError(f"expected encoder, predictor and target_encoder, found no {absent[0]}")
    context, predictor, target = (strip_prefixes(contents[name]) for name in NETWORKS)
    try:
        context_layout, target_layout = (recognise_sincos(state.pop(POSITIONS)) for state in (context, target))
        predictor_layout = recognise_sincos(predictor.pop(PREDICTOR_POSITIONS))
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} is missing") from None
    if not context_layout == target_layout == predictor_layout:
        raise ValueError("its networks have different positions")
    notes: list[str] = []
    facts: dict[str, Any] = {}
    description = contents.get(SPEC_KEY)
    if isinstance(description, dict):  # written by `write`
        try:
            spec = described_vit(description)
        except TypeError as fault:
            raise ValueError(f"its {SPEC_KEY} does not describe an encoder ({fault})") from None
    else:
        sizes = encoder_sizes(context, heads)
        (mean, std), note = assumed_statistics(sizes["channels"])
        spec = build_spec(context_layout, sizes, mean, std)
        notes += [note] if sizes["channels"] != 3 else []  # the reference always uses ImageNet's
        facts = {name: contents[name] for name in FACT_KEYS if isinstance(contents.get(name), int | float)}
    return Weights(
        FORM,
        spec,
        {"target": target, "context": context},
        {_from_meta_name(name): tensor for name, tensor in predictor.items()},
        tuple(notes),
        facts,
    ).check()


def write(path: Path, jepa: JEPA, spec: Spec) -> None:
    """Writes the three networks under the reference's names, atomically.

    Raises:
        ValueError: if the format does not support these networks.
    """
    rows, columns = spec.grid
    if rows != columns:
        raise ValueError(f"the reference implementation supports square images only, not {rows}x{columns} patches")
    if spec.kind != "vit":
        raise ValueError(f"its encoder is {spec.name}, not I-JEPA's ViT; safetensors holds any encoder")
    if spec.registers:
        raise ValueError(f"it has {spec.registers} register tokens; the reference implementation's encoder has none")
    if spec.positions == "stored":
        raise ValueError("its position embeddings are learnt; the reference implementation's are sin-cos")
    if jepa.predictor.attention != "joint":
        raise ValueError("its predictor only cross-attends; the reference implementation's attends jointly")
    if jepa.predictor.output_width != spec.width:
        raise ValueError(
            "its predictor predicts other targets; the reference implementation's predicts the encoder's output"
        )
    write_pickle(path, {**to_meta(jepa), SPEC_KEY: spec.plain()})  # the reference ignores other keys


def to_meta(jepa: JEPA) -> dict[str, Any]:
    """A state dict for the reference implementation: its names, with position embeddings as parameters."""
    networks: dict[str, Any] = {"encoder": jepa.context_encoder, "target_encoder": jepa.target_encoder}
    encoders = {
        name: {POSITIONS: position_table(network), **_detached(network.state_dict())}
        for name, network in networks.items()
    }
    predictor = jepa.predictor
    table = predictor.positions
    reference_grid = table.grid if table.positions == "scaled" else None
    names = {_to_meta_name(name): tensor for name, tensor in _detached(predictor.state_dict()).items()}
    states = {
        "encoder": encoders["encoder"],
        "predictor": {PREDICTOR_POSITIONS: sincos_2d(predictor.width, predictor.grid, reference_grid)[None], **names},
        "target_encoder": encoders["target_encoder"],
    }
    prefixed = {name: {f"module.{key}": value for key, value in state.items()} for name, state in states.items()}
    return {**prefixed, "opt": {}, "scaler": None, "epoch": 0, "loss": 0.0, "batch_size": 0, "world_size": 1, "lr": 0.0}


def _detached(state: dict[str, Any]) -> State:
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}


def _from_meta_name(name: str) -> str:
    for our_prefix, meta_prefix in PREDICTOR_NAMES.items():
        if name.startswith(meta_prefix):
            return our_prefix + name.removeprefix(meta_prefix)
    raise ValueError(f"its predictor has {name}, which I-JEPA's does not have")


def _to_meta_name(name: str) -> str:
    for our_prefix, meta_prefix in PREDICTOR_NAMES.items():
        if name.startswith(our_prefix):
            return meta_prefix + name.removeprefix(our_prefix)
    raise AssertionError(name)
