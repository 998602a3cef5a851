"""From a run's folder, a checkpoint or a foreign file to an encoder; and the encoder's export."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from ijepa.data.images import EvalTransform
from ijepa.errors import ConfigError
from ijepa.interop import meta, timm
from ijepa.interop.timm import SPEC_KEY
from ijepa.models.positions import Positions
from ijepa.models.pretrained import PretrainedEncoder, Spec

Which = Literal["target", "context"]
IMAGES_KEY = "ijepa_images"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVAL_CROP = 0.875
"""Of the centre that the paper's evaluations on ImageNet keep: 224 of 256 pixels."""
FORMATS = "a run folder, a checkpoint (.ckpt), encoder.safetensors or the reference implementation's .pth.tar"


def load_encoder(path: str | Path, encoder: Which = "target", positions: Positions = "scaled") -> PretrainedEncoder:
    """The encoder of a run folder, a checkpoint, `encoder.safetensors` or a reference checkpoint, in eval mode.

    Args:
        path: folder or file.
        encoder: ``target`` (what the paper evaluates) or ``context``.
        positions: images of another size than in pretraining have their positions mapped onto the grid of pretraining
            (``scaled``), or patch indices as they are (``index``).

    Returns:
        A module from images [B, C, H, W] in 0..1 to patch features [B, N, D]; its ``transform`` ends at 0..1.

    Raises:
        UserError: when there is no such file, or it is not what it should be.
    """
    file = find(Path(path).expanduser(), encoder)
    spec, state = _read(file, encoder)
    spec = replace(spec, positions=positions)
    try:
        network = spec.build()
    except Exception as error:  # whatever a description that was changed by hand leads to
        raise ConfigError("checkpoint", file, f"the encoder's description does not fit: {error}") from None
    expected = network.state_dict()
    wrong = sorted(expected.keys() ^ state.keys()) or [
        name for name, tensor in state.items() if tensor.shape != expected[name].shape
    ]
    if wrong:
        problem = f"{len(wrong)} of its tensors do not fit the sizes that stand with them, {wrong[0]} for example"
        raise ConfigError("checkpoint", file, f"{problem}; give {FORMATS}")
    network.load_state_dict(state)
    pretrained = PretrainedEncoder(network, spec).eval().requires_grad_(False)
    pretrained.transform = EvalTransform(spec.image_size, spec.eval_crop, spec.channels)
    return pretrained


def find(path: Path, encoder: Which = "target") -> Path:
    """The file that ``path`` means: itself, or the encoder or last checkpoint of a run's folder."""
    if not path.exists():
        raise ConfigError("checkpoint", path, f"no such file or folder; give {FORMATS}")
    if path.is_file():
        return path
    candidates = [path / "checkpoints" / "last.ckpt"]
    if encoder == "target":
        candidates.insert(0, path / "encoder.safetensors")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = " nor ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise ConfigError("checkpoint", path, f"no run's folder: it has neither {wanted}")


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """A pickled checkpoint, loaded without running code from it; ``mapped``: its tensors stay on disk until used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that the next line refuses anyway
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # what is no checkpoint makes the unpickler raise anything
        problem = "no checkpoint, a part of one, or one that holds more than tensors and plain values"
        raise ConfigError("checkpoint", path, f"{problem}; give {FORMATS}") from None
    if not isinstance(contents, dict):
        raise ConfigError("checkpoint", path, f"holds a {type(contents).__name__}; give {FORMATS}")
    return contents


def _read(file: Path, encoder: Which) -> tuple[Spec, meta.State]:
    if file.suffix == ".safetensors":
        return _read_safetensors(file, encoder)
    contents = load(file)
    if meta.is_meta(contents):
        try:
            found = meta.read(contents)
        except (ValueError, AttributeError) as fault:  # missing, or no tensors
            raise ConfigError("checkpoint", file, f"not a whole I-JEPA checkpoint: {fault}") from None
        sizes = {name: value for name, value in found.sizes.items() if not name.startswith("predictor")}
        mean, std = (
            IMAGENET if found.sizes["channels"] == 3 else ((0.0,) * sizes["channels"], (1.0,) * sizes["channels"])
        )
        spec = Spec(**sizes, positions="index", position_grid=None, mean=mean, std=std, eval_crop=EVAL_CROP)
        return spec, found.target_encoder if encoder == "target" else found.context_encoder
    if SPEC_KEY not in contents or "state_dict" not in contents:
        raise ConfigError("checkpoint", file, f"not a checkpoint of this software; give {FORMATS}")
    prefix = f"jepa.{encoder}_encoder."
    state = {name.removeprefix(prefix): t for name, t in contents["state_dict"].items() if name.startswith(prefix)}
    return _spec(file, contents[SPEC_KEY]), state


def _read_safetensors(file: Path, encoder: Which) -> tuple[Spec, meta.State]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError("checkpoint", file, f"cannot be read ({error}); give {FORMATS}") from None
    if SPEC_KEY not in metadata:
        raise ConfigError("checkpoint", file, f"not an encoder of this software (no {SPEC_KEY} in its metadata)")
    try:
        values = json.loads(metadata[SPEC_KEY])
        held = values.pop("encoder")
    except (ValueError, AttributeError, KeyError):
        raise ConfigError("checkpoint", file, f"{SPEC_KEY} in its metadata is no encoder's description") from None
    if held != encoder:
        raise ConfigError("encoder", encoder, f"{file} holds the {held} encoder; give the run's folder or checkpoint")
    return _spec(file, values), timm.from_timm(state)


def _spec(file: Path, values: dict[str, Any]) -> Spec:
    try:
        return Spec.of(values)
    except TypeError as error:
        raise ConfigError("checkpoint", file, f"the encoder's description does not fit: {error}") from None
