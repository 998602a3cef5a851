"""Loads an encoder from a run's folder, a file, a timm name or a URL."""

import hashlib
import os
import shutil
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import urlopen

from rich import progress

from ijepa.data.images import EvalTransform
from ijepa.interop import reading, timm, transformers
from ijepa.interop.reading import FORMATS
from ijepa.interop.weights import HeadsError, Weights, Which
from ijepa.models.positions import Positions
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.run_folder import RunFolder
from ijepa.util.errors import ConfigError
from ijepa.util.files import replacing

IMAGES_KEY = "ijepa_images"
KEY = "checkpoint"
"""The option that names the file, for messages."""
HEADS_KEYS = {KEY: "heads", "init": "model.heads"}
"""The option for the number of attention heads, by the option that names the file."""
CHUNK = 2**20
"""Chunk size of a download in bytes."""
ELSEWHERE = "a timm name, or the https:// URL of one of these"


def load_encoder(
    path: str | Path, encoder: Which = "target", positions: Positions = "scaled", heads: int | None = None
) -> PretrainedEncoder:
    """Loads an encoder from any supported file, in eval mode.

    Args:
        path: run folder, checkpoint, `encoder.safetensors`, Meta's `.pth.tar`, a timm state dict, a folder of
            transformers, a timm name, or the https:// URL of a file.
        encoder: ``target`` (the EMA encoder, which the paper evaluates) or ``context``.
        positions: position embeddings of images whose size differs from pretraining: interpolated from the grid of
            pretraining (``scaled``), or of patch indices (``index``); learnt ones are resampled.
        heads: number of attention heads, if neither the file nor a published width determines it.

    Returns:
        A module that maps images [B, C, H, W] in 0..1 to patch features [B, N, D]; its ``transform`` prepares images.

    Raises:
        UserError: if there is no such file, or it is not suitable.
    """
    file = select_file(resolve_source(path), encoder)
    return build_encoder(read_weights(file, heads), file, encoder, positions)


def build_encoder(
    weights: Weights, file: Path, encoder: Which, positions: Positions = "scaled", key: str = KEY
) -> PretrainedEncoder:
    """The chosen encoder of weights that were read; raises ConfigError if they lack it."""
    state = weights.encoder(encoder)
    if state is None:
        held = " and ".join(str(which) for which in weights.encoders)
        asked = "encoder" if key == KEY else "--encoder"
        problem = (
            f"{file} contains only the {held} encoder; give the run's folder or checkpoint, or try the {held} encoder"
        )
        raise ConfigError(asked, encoder, problem)
    spec = weights.spec if weights.spec.positions == "stored" else replace(weights.spec, positions=positions)
    try:
        network = spec.build()
        network.load_state_dict(state)
    except Exception as error:  # whatever a description that was changed by hand leads to
        raise ConfigError(key, file, f"the encoder's description does not match its weights: {error}") from None
    pretrained = PretrainedEncoder(network, spec).eval().requires_grad_(False)
    pretrained.transform = EvalTransform(spec.image_size, spec.eval_crop, spec.channels)
    return pretrained


def read_weights(file: Path, heads: int | None = None, key: str = KEY) -> Weights:
    """The weights in a file from `select_file`; raises ConfigError, which says what is wrong with it."""
    asked = HEADS_KEYS.get(key, "--heads")
    if heads is not None and (not isinstance(heads, int) or isinstance(heads, bool) or heads < 1):
        raise ConfigError(asked, heads, "should be a whole number, 1 or more")
    try:
        found = reading.read(file, heads)
    except HeadsError as fault:
        raise ConfigError(key, file, f"{fault}; add {asked}{'=' if '-' not in asked else ' '}N") from None
    except (ValueError, AttributeError, TypeError, IndexError) as fault:  # all but the first: of no tensors
        raise ConfigError(key, file, f"{fault}; give {FORMATS}") from None
    if heads is not None and heads != found.spec.heads:
        raise ConfigError(asked, heads, f"{key}={file} has {found.spec.heads}; omit it")
    return found


def resolve_source(text: str | Path, key: str = KEY) -> Path:
    """The local path for ``text``: a path, a URL (which is downloaded), or a timm name.

    Downloads are cached in $IJEPA_CACHE/weights, by default ~/.cache/ijepa/weights.

    Raises:
        ConfigError: if it could not be downloaded.
    """
    if str(text).startswith(("https://", "http://")):
        return _downloaded(str(text), key)
    if not str(text):
        raise ConfigError(key, text, f"needs {FORMATS}, {ELSEWHERE}")
    path = Path(text).expanduser()
    try:
        if not path.exists() and timm.is_name(str(text)):
            return _of_timm(str(text), key)
    except OSError as error:
        raise ConfigError(key, text, f"cannot be read: {error.strerror}") from None
    return path


def select_file(path: Path, encoder: Which = "target", whole: bool = False, key: str = KEY) -> Path:
    """The weights file for ``path``: the file itself, or the encoder or last checkpoint of a run's folder.

    Args:
        path: file or folder.
        encoder: which encoder is wanted.
        whole: whether all networks are wanted, if available.
        key: the option's name, for messages.

    Raises:
        ConfigError: if there is none.
    """
    try:
        there = path.exists()
    except OSError as error:
        raise ConfigError(key, path, f"cannot be read: {error.strerror}") from None
    if not there:
        raise ConfigError(key, path, f"no such file or folder; give {FORMATS}, {ELSEWHERE}")
    if path.is_file():
        return path
    if transformers.is_folder(path):
        return path / transformers.WEIGHTS
    run = RunFolder(path)
    candidates = [run.checkpoints.last]
    if encoder == "target":
        candidates.insert(1 if whole else 0, run.encoder)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = " nor ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise ConfigError(key, path, f"not a run's folder: it has neither {wanted} nor {transformers.CONFIG}")


def load_checkpoint(path: Path, mapped: bool = False) -> dict[str, Any]:
    """A pickled checkpoint, loaded without running code from it; ``mapped``: its tensors stay on disk until used."""
    try:
        return reading.load(path, mapped)
    except ValueError as fault:
        raise ConfigError(KEY, path, f"{fault}; give {FORMATS}") from None


def _kept() -> Path:
    return Path(os.environ.get("IJEPA_CACHE", "~/.cache/ijepa")).expanduser() / "weights"


def _downloaded(url: str, key: str) -> Path:
    """Downloads ``url`` to a folder of its own, because other URLs may have the same file name."""
    try:
        name = Path(urlparse(url).path).name
    except ValueError as fault:
        raise ConfigError(key, url, f"not a valid URL: {fault}") from None
    if not name:
        raise ConfigError(key, url, "the URL names no file")
    file = _kept() / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    if file.is_file():
        return file
    print(f"download {url}, once; cached as {file}", flush=True)
    try:
        with urlopen(url) as response, replacing(file) as temporary, temporary.open("wb") as target:
            whole = response.length
            with progress.wrap_file(response, whole or 0, description=name) as source:
                shutil.copyfileobj(source, target, CHUNK)
            if whole and target.tell() < whole:
                raise URLError(f"truncated after {target.tell()} of {whole} bytes")
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            key, url, f"could not be downloaded ({reason}); download it yourself and give the file"
        ) from None
    return file


def _of_timm(name: str, key: str) -> Path:
    file = _kept() / f"{name.replace('/', '-')}.safetensors"
    if file.is_file():
        return file
    try:
        found = timm.download(name)
    except ValueError as fault:
        raise ConfigError(key, name, f"{fault}; give {FORMATS}, {ELSEWHERE}") from None
    except Exception as error:  # of the network, of the hub's client, of timm
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(key, name, f"timm could not load it ({reason}); give a file instead") from None
    which = next(iter(found.encoders))
    network = found.spec.build()
    network.load_state_dict(found.encoders[which])
    timm.write(file, network, found.spec, which or "target")
    return file
