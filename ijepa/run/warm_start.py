"""Starts a new run from existing weights: `python train.py init=FILE`.

Network sizes and settings that depend on them (image size, channels, normalisation, positions) come from the file,
unless the user sets them. The networks start from its weights; optimiser and schedules start from scratch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ijepa.config.custom import TARGET
from ijepa.interop import loading
from ijepa.interop.weights import State, Weights
from ijepa.models.jepa import JEPA
from ijepa.models.pretrained import Spec
from ijepa.models.timm_vit import TIMM_ARGUMENTS
from ijepa.util.errors import ConfigError, UserError, show
from ijepa.util.paths import CONF

KEY = "init"
Adapt = Literal["average", "inflate"]
PATCHES = "patch_embed.proj.weight"


@dataclass(frozen=True)
class WarmStart:
    """Weights to start from, and the file that contains them."""

    file: Path
    weights: Weights

    @property
    def starting_networks(self) -> str:
        """The networks that start from the weights, in words."""
        encoders = self.weights.encoders
        if len(encoders) == 2:
            names = ["context encoder", "target encoder"]
        else:
            which = next(iter(encoders))
            names = [f"both encoders from {f'the {which} encoder' if which else 'the encoder'}"]
        names += ["predictor"] if self.weights.predictor is not None else []
        return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def read(text: str, heads: int | None = None) -> WarmStart:
    """The weights that ``init=`` names; raises UserError if they cannot be read.

    ``heads``: the number of attention heads, for formats that do not store it.
    """
    file = loading.select_file(loading.resolve_source(text, KEY), whole=True, key=KEY)
    return WarmStart(file, loading.read_weights(file, heads, KEY))


def apply_checkpoint_sizes(values: dict[str, Any], start: WarmStart, given: Callable[[str], bool]) -> dict[str, Any]:
    """A configuration with the values that the weights determine.

    Args:
        values: plain containers, not validated yet.
        start: the weights.
        given: whether the user has set a key; such values are kept if the weights allow it.

    Raises:
        UserError: when a value that the user has set contradicts the weights.
    """
    spec = start.weights.spec
    model, predictor, data = dict(values["model"]), dict(values["predictor"]), dict(values["data"])

    def set_from_file(section: dict[str, Any], prefix: str, name: str, value: Any) -> None:
        key = f"{prefix}.{name}"
        if given(key) and not _same(section[name], value):
            raise ConfigError(key, section[name], f"{KEY}={start.file} has {show(value)}; omit it, or set the same")
        section[name] = value

    if spec.kind != "vit":
        model = _foreign_model(model, start, given)
    elif TARGET in model or "name" in model:
        raise ConfigError("model", model.get(TARGET, "timm"), f"{KEY}={start.file} has I-JEPA's ViT; omit it")
    for name in ("patch_size", "width", "depth", "heads", "mlp_ratio", "registers") if spec.kind == "vit" else ():
        set_from_file(model, "model", name, getattr(spec, name))
    if start.weights.predictor is not None:
        sizes = start.weights.predictor_sizes
        for name in ("width", "depth", "mlp_ratio", "attention"):
            set_from_file(predictor, "predictor", name, getattr(sizes, name))
    else:
        defaults = _predictor_sizes(spec.width, spec.depth)
        predictor |= {name: value for name, value in defaults.items() if not given(f"predictor.{name}")}
    _apply_image_settings(data, spec, values.get("init_channels"), start.file, given)
    if spec.kind == "vit":
        _apply_positions(model, data["image_size"], spec, given)
    return {**values, "model": model, "predictor": predictor, "data": data}


def _same(chosen: Any, value: Any) -> bool:
    """Whether a value that the user has set is that of the file; numbers within rounding."""
    if isinstance(chosen, int | float) and isinstance(value, int | float):
        return abs(chosen - value) <= 1e-6
    return bool(chosen == value)


def _predictor_sizes(width: int, depth: int) -> dict[str, Any]:
    """Predictor sizes for an encoder: the published depth for encoders of that depth, else half of the encoder's."""
    models = [OmegaConf.load(file) for file in sorted((CONF / "model").glob("vit_*.yaml"))]
    names = {each.model.depth: part["/predictor"] for each in models for part in each.defaults if "/predictor" in part}
    published = OmegaConf.load(CONF / "predictor" / "_published.yaml")
    if depth in names:
        predictor_depth = OmegaConf.load(CONF / "predictor" / f"{names[depth]}.yaml").depth
    else:
        predictor_depth = max(depth // 2, 1)
    return {"width": min(published.width, width // 2), "depth": predictor_depth, "mlp_ratio": published.mlp_ratio}


def _foreign_model(model: dict[str, Any], start: WarmStart, given: Callable[[str], bool]) -> dict[str, Any]:
    """The ``model`` section of an encoder that is not I-JEPA's ViT; raises ConfigError if the user sets another one."""
    spec = start.weights.spec
    key = "name" if spec.kind == "timm" else TARGET
    if given("model.width") and model.get(key) != spec.name:
        raise ConfigError("model", model.get(key, "vit"), f"{KEY}={start.file} has {spec.name}; omit it")
    if spec.kind == "custom":
        return {TARGET: spec.name, **spec.options, "patch_size": spec.patch_size}
    sizes = {option: spec.options.get(option) for option in TIMM_ARGUMENTS}
    return {"name": spec.name, "pretrained": False, "patch_size": spec.patch_size, **sizes}


def _apply_image_settings(
    data: dict[str, Any], spec: Spec, adapt: Any, file: Path, given: Callable[[str], bool]
) -> None:
    plain = spec.plain()
    for name in ("image_size", "channels", "eval_crop"):
        if not given(f"data.{name}"):
            data[name] = plain[name]
    if data["channels"] == spec.channels:
        data |= {name: plain[name] for name in ("mean", "std") if not given(f"data.{name}")}
        if adapt is not None:
            raise ConfigError("init_channels", adapt, f"{KEY}={file} has {spec.channels} channels already; omit it")
    elif adapt == "inflate" and isinstance(data["channels"], int) and data["channels"] % spec.channels:
        problem = f"data.channels={data['channels']} is not a multiple of {spec.channels}; try init_channels=average"
        raise ConfigError("init_channels", adapt, problem)
    elif adapt is None:
        problem = f"{KEY}={file} has {spec.channels}; add init_channels=average or init_channels=inflate"
        raise ConfigError("data.channels", data["channels"], problem)


def _apply_positions(model: dict[str, Any], size: Any, spec: Spec, given: Callable[[str], bool]) -> None:
    """Positional embeddings as in the file; for another image size scaled to its grid, unless the user sets them."""
    sides = [size, size] if isinstance(size, int) else size
    if spec.positions == "stored":
        if given("model.positions") and model["positions"] != "stored":
            raise ConfigError("model.positions", model["positions"], f"{KEY} has learnt ones; omit it")
        other_size = sides != list(spec.image_size)
        model |= {"positions": "stored", "position_grid": list(spec.position_grid or spec.grid) if other_size else None}
        return
    if not given("model.positions"):
        model["positions"] = spec.positions if sides == list(spec.image_size) else "scaled"
    if not given("model.position_grid"):
        scaled = model["positions"] == "scaled" and (spec.position_grid or sides != list(spec.image_size))
        model["position_grid"] = list(spec.position_grid or spec.grid) if scaled else None


def load(jepa: JEPA, start: WarmStart, channels: int, adapt: Adapt | None) -> list[str]:
    """Loads the weights into the networks; if the file has only one encoder, both start from it.

    Args:
        jepa: networks with the sizes of the weights.
        start: the weights.
        channels: of the images.
        adapt: see ``how`` of `adapt_patch_embedding`; None: the channels must match.

    Returns:
        Notes for the user, one line each.

    Raises:
        UserError: when the networks have other sizes; nothing is loaded then.
    """
    weights, notes = start.weights, list(start.weights.notes)
    context, target = weights.encoder("context"), weights.encoder("target")
    pairs = [
        (jepa.context_encoder, _with_channels(context or target, channels, adapt)),
        (jepa.target_encoder, _with_channels(target or context, channels, adapt)),
    ]
    predictor = weights.predictor
    if predictor is not None and weights.predictor_sizes.output_width != jepa.predictor.output_width:
        notes.append("the predictor is newly initialised: the one in the file predicts other targets")
    elif predictor is not None:
        pairs.append((jepa.predictor, predictor))  # type: ignore[arg-type]
    for network, state in pairs:
        expected = network.state_dict()
        mismatched = [
            name for name, tensor in expected.items() if name not in state or state[name].shape != tensor.shape
        ]
        if mismatched:
            raise UserError(f"{KEY}={start.file}: {mismatched[0]} does not match the networks as configured")
    for network, state in pairs:
        network.load_state_dict(state)
    return notes


def _with_channels(state: State | None, channels: int, adapt: Adapt | None) -> State:
    assert state is not None
    if PATCHES not in state and adapt is not None:
        raise ConfigError("init_channels", adapt, f"needs {PATCHES} among the weights; omit it")
    if adapt is None or state[PATCHES].shape[1] == channels:
        return state
    return {**state, PATCHES: adapt_patch_embedding(state[PATCHES], channels, adapt)}


def adapt_patch_embedding(weight: Tensor, channels: int, how: Adapt) -> Tensor:
    """A patch embedding for another number of channels; images with equal channels are embedded as before.

    Args:
        weight: [D, C, P, P].
        channels: C'; a multiple of C for ``inflate``.
        how: ``average``: every channel gets the mean over the C channels; ``inflate``: the C channels are repeated.

    Returns:
        [D, C', P, P].
    """
    before = weight.shape[1]
    if how == "average":
        adapted = weight.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
    else:
        adapted = weight[:, torch.arange(channels) % before]
    return adapted * (before / channels)
