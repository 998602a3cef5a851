"""Reads the decoder of a run of experiment=decoder, with the frozen networks that it draws from."""

from pathlib import Path
from typing import Any

from ijepa.config.custom import first_line
from ijepa.config.trust import UntrustedError
from ijepa.interop import loading, native
from ijepa.interop.weights import DECODER_KEY, predictor_sizes
from ijepa.util.errors import ConfigError

PREFIX = "sketcher."
KEY = "checkpoint"


def read(path: Path) -> tuple[Any, dict[str, Any]]:
    """The `Sketcher` in a checkpoint of a decoder's run, or in the last one of its folder; and its description.

    Raises:
        ConfigError: if there is none, or its weights do not match its description.
        UntrustedError: if its encoder is of a class that the user has not allowed.
    """
    from ijepa.models.conditions import Conditions
    from ijepa.models.decoder import SketchDecoder
    from ijepa.models.diffusion import Diffusion, Sampling
    from ijepa.models.sketcher import Sketcher

    file = loading.select_file(path, "context", key=KEY)  # a whole checkpoint, not an export
    contents = {} if file.suffix == ".safetensors" else loading.load_checkpoint(file, mapped=False)
    if DECODER_KEY not in contents:
        raise ConfigError(
            KEY, path, "not a decoder's run; train one: python train.py experiment=decoder checkpoint=RUN"
        )
    description = contents[DECODER_KEY]
    try:
        state = {name.removeprefix(PREFIX): tensor for name, tensor in contents["state_dict"].items()
                 if name.startswith(PREFIX)}  # fmt: skip
        spec = native.parse_spec(description["encoder"], file)
        predictor = {name.removeprefix("conditions.predictor."): tensor for name, tensor in state.items()
                     if name.startswith("conditions.predictor.")}  # fmt: skip
        conditions = Conditions(
            description["condition"], description["pooled"], spec.grid, spec.build(), spec.build(),
            predictor_sizes(predictor).build(spec) if predictor else None,
        )  # fmt: skip
        sketcher = Sketcher(
            SketchDecoder(**description["decoder"]), conditions, Diffusion(description["predicts"]),
            Sampling(*description["sampling"]), spec,
        )  # fmt: skip
        sketcher.load_state_dict(state)
    except UntrustedError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, AssertionError) as error:
        problem = f"the decoder's description does not match its weights: {first_line(error)}"
        raise ConfigError(KEY, file, problem) from None
    loading.check_finite(sketcher, "decoder", file, KEY)
    return sketcher.eval().requires_grad_(False), description
