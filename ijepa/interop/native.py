"""Our own files: checkpoints of training runs, and `encoder.safetensors`."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ijepa.config.custom import TARGET
from ijepa.config.trust import check_target
from ijepa.interop.timm import CUSTOM_HEAD, TRAINED_HEAD, from_timm
from ijepa.interop.weights import SPEC_KEY, State, Weights, Which
from ijepa.models.pretrained import Spec
from ijepa.util.reading import parse_json

CHECKPOINT = "a checkpoint of a training run"
EXPORT = "an encoder of this software"
PREFIX = "jepa."


def read_checkpoint(contents: dict[str, Any], file: Path) -> Weights:
    """The three networks of a training run's checkpoint.

    Raises:
        UntrustedError: if its encoder is of a class that the user has not allowed.
        ValueError: if it is incomplete.
    """
    state = contents.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError("not a checkpoint of this software: it has no state_dict")

    def part(network: str) -> State:
        prefix = f"{PREFIX}{network}."
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix) and isinstance(tensor, Tensor)
        }

    spec = parse_spec(contents[SPEC_KEY], file)
    encoders: dict[Which | None, State] = {"target": part("target_encoder"), "context": part("context_encoder")}
    step = contents.get("global_step")
    facts = {"step": step} if isinstance(step, int) else {}
    return Weights(CHECKPOINT, spec, encoders, part("predictor"), facts=facts).check()


def read_export(metadata: dict[str, str], state: State, file: Path) -> Weights:
    """The encoder in a safetensors file.

    Raises:
        UntrustedError: if its encoder is of a class that the user has not allowed.
        ValueError: if the weights do not match their description.
    """
    values = read_description(metadata)
    which = values.pop("encoder")
    if which not in ("target", "context"):
        raise ValueError(f"{SPEC_KEY} in its metadata: expected a target or context encoder, found {which}")
    spec = parse_spec(values, file)
    if spec.kind == "custom":
        encoder = {name: tensor for name, tensor in state.items() if not name.startswith((CUSTOM_HEAD, TRAINED_HEAD))}
    else:
        encoder = from_timm(state, spec.positions == "stored")
    return Weights(EXPORT, spec, {which: encoder}).check()


def read_description(metadata: dict[str, str]) -> dict[str, Any]:
    """The encoder's description in the metadata of a safetensors file; raises ValueError if it is invalid."""
    try:
        values: dict[str, Any] = dict(parse_json(metadata[SPEC_KEY]))
        values["encoder"]  # must exist
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{SPEC_KEY} in its metadata does not describe an encoder") from None
    return values


def parse_spec(values: Any, file: Path) -> Spec:
    """The encoder that a file describes.

    Raises:
        UntrustedError: if it is of a class that the user has not allowed.
        ValueError: if the description is invalid.
    """
    try:
        spec = Spec.of(values)
    except (TypeError, ValueError, AttributeError) as error:  # AttributeError: not a dict
        raise ValueError(f"the encoder's description does not match its weights: {error}") from None
    if spec.kind == "custom":
        check_target(f"model.{TARGET}", str(spec.name), file)
    return spec
