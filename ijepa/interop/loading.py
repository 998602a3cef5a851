"""Loads an encoder from a run's folder, a file, a timm name or a URL."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import urlopen

from rich import progress
from torch import nn

from ijepa.config.trust import UntrustedError, trusting
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
TEACHER_KEY = "objective.teacher"
HEADS_KEYS = {KEY: "heads", "init": "model.heads"}
"""The option for the number of attention heads, by the option that names the file."""
CHUNK = 2**20
"""Chunk size of a download in bytes."""
REMOTE_FORMATS = "a timm name, or the https:// URL of one of these"


def load_encoder(
    path: str | Path,
    encoder: Which = "target",
    positions: Positions = "scaled",
    heads: int | None = None,
    trust: str | Sequence[str] = (),
) -> PretrainedEncoder:
    """Loads an encoder from any supported file, in eval mode.

    Args:
        path: run folder, checkpoint, `encoder.safetensors`, Meta's `.pth.tar`, a timm state dict, a folder of
            transformers, a timm name, or the https:// URL of a file.
        encoder: ``target`` (the EMA encoder, which the paper evaluates) or ``context``.
        positions: position embeddings for images of another size than in pretraining: ``scaled`` to the pretraining
            grid, or of patch indices (``index``); learnt ones are resampled.
        heads: number of attention heads; needed if neither the file nor a published width determines it.
        trust: packages whose classes the file may name, for encoders of your own.

    Returns:
        A module that maps images [B, C, H, W] in 0..1 to patch features [B, N, D]; its ``transform`` prepares images.

    Raises:
        UserError: if the file is missing, could not be downloaded, does not contain this encoder, or names a class that
            ``trust`` does not allow.
    """
    file = select_file(resolve_source(path), encoder)
    with trusting(trust):
        return build_encoder(read_weights(file, heads), file, encoder, positions)


def build_encoder(
    weights: Weights, file: Path, encoder: Which, positions: Positions = "scaled", key: str = KEY
) -> PretrainedEncoder:
    """The chosen encoder of ``weights``, read from ``file``; raises ConfigError if they do not contain it."""
    state = weights.encoder(encoder)
    if state is None:
        others = " and ".join(str(which) for which in weights.encoders)
        option = "encoder" if key == KEY else "--encoder"
        problem = f"{file} contains only the {others} encoder"
        problem += f"; give the run's folder or checkpoint, or try the {others} encoder"
        raise ConfigError(option, encoder, problem)
    spec = weights.spec if weights.spec.positions == "stored" else replace(weights.spec, positions=positions)
    try:
        network = spec.build()
        network.load_state_dict(state)
    except Exception as error:  # a description that was edited by hand can raise anything
        raise ConfigError(key, file, f"the encoder's description does not match its weights: {error}") from None
    assert isinstance(network, nn.Module)
    check_finite(network, f"{encoder} encoder", file, key)
    pretrained = PretrainedEncoder(network, spec).eval().requires_grad_(False)
    pretrained.transform = EvalTransform(spec.image_size, spec.eval_crop, spec.channels)
    return pretrained


def check_finite(network: nn.Module, name: str, file: Path, key: str = KEY) -> None:
    """Raises ConfigError if a weight of ``network``, the file's ``name``, is not finite."""
    spoilt = next((each for each, weight in network.named_parameters() if not weight.isfinite().all()), None)
    if spoilt is not None:
        problem = f"{spoilt} of the {name} is not finite, as after a run that diverged"
        raise ConfigError(key, file, f"{problem}; give an earlier checkpoint")


def read_weights(file: Path, heads: int | None = None, key: str = KEY, heads_key: str | None = None) -> Weights:
    """The weights in a file from `select_file`; raises ConfigError if it cannot be read.

    ``heads_key``: the option for the number of attention heads; None: that of `HEADS_KEYS`.
    """
    option = heads_key or HEADS_KEYS.get(key, "--heads")
    if heads is not None and (not isinstance(heads, int) or isinstance(heads, bool) or heads < 1):
        raise ConfigError(option, heads, "should be a whole number, 1 or more")
    try:
        weights = reading.read(file, heads)
    except UntrustedError:
        raise
    except HeadsError as fault:
        advice = f"add {option}{'=' if '-' not in option else ' '}N"
        if key == TEACHER_KEY:
            advice = "convert it first, with --heads N"
        raise ConfigError(key, file, f"{fault}; {advice}") from None
    except (ValueError, AttributeError, TypeError, IndexError) as fault:  # the last three: values that are not tensors
        raise ConfigError(key, file, f"{fault}; give {FORMATS}") from None
    if heads is not None and heads != weights.spec.heads:
        raise ConfigError(option, heads, f"{key}={file} has {weights.spec.heads}; omit it")
    return weights


def resolve_source(text: str | Path, key: str = KEY) -> Path:
    """The local path for ``text``: a path, a URL or a timm name; the last two are downloaded.

    Downloads are cached in $IJEPA_CACHE/weights, by default ~/.cache/ijepa/weights.

    Raises:
        ConfigError: if ``text`` is empty or could not be downloaded.
    """
    if str(text).startswith(("https://", "http://")):
        return _download(str(text), key)
    if not str(text):
        raise ConfigError(key, text, f"needs {FORMATS}, {REMOTE_FORMATS}")
    path = Path(text).expanduser()
    try:
        if not path.exists() and timm.is_timm_name(str(text)):
            return _download_from_timm(str(text), key)
    except OSError as error:
        raise ConfigError(key, text, f"cannot be read: {error.strerror}") from None
    return path


def select_file(path: Path, encoder: Which = "target", whole: bool = False, key: str = KEY) -> Path:
    """The weights file for ``path``: the file itself, or the encoder or last checkpoint of a run's folder.

    Args:
        path: file or folder.
        encoder: the encoder to load.
        whole: prefer a file with all networks.
        key: the option that names the file, for messages.

    Raises:
        ConfigError: if the path does not exist or contains no weights file.
    """
    try:
        exists = path.exists()
    except OSError as error:
        raise ConfigError(key, path, f"cannot be read: {error.strerror}") from None
    if not exists:
        raise ConfigError(key, path, f"no such file or folder; give {FORMATS}, {REMOTE_FORMATS}")
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
    looked_for = " nor ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise ConfigError(key, path, f"not a run's folder: it has neither {looked_for} nor {transformers.CONFIG}")


def load_checkpoint(path: Path, mapped: bool = False) -> dict[str, Any]:
    """As `ijepa.interop.reading.load_pickle`, but raises ConfigError."""
    try:
        return reading.load_pickle(path, mapped)
    except ValueError as fault:
        raise ConfigError(KEY, path, f"{fault}; give {FORMATS}") from None


def _weights_cache() -> Path:
    return Path(os.environ.get("IJEPA_CACHE", "~/.cache/ijepa")).expanduser() / "weights"


def _download(url: str, key: str) -> Path:
    """Downloads ``url`` unless cached; each URL has its own folder, because file names may coincide."""
    try:
        name = Path(urlparse(url).path).name
    except ValueError as fault:
        raise ConfigError(key, url, f"not a valid URL: {fault}") from None
    if not name:
        raise ConfigError(key, url, "the URL names no file")
    file = _weights_cache() / hashlib.sha256(url.encode()).hexdigest()[:12] / name
    if file.is_file():
        return file
    print(f"download {url}, once; cached as {file}", flush=True)
    try:
        with urlopen(url) as response, replacing(file) as temporary, temporary.open("wb") as target:
            expected_bytes = response.length
            with progress.wrap_file(response, expected_bytes or 0, description=name) as source:
                shutil.copyfileobj(source, target, CHUNK)
            if expected_bytes and target.tell() < expected_bytes:
                raise URLError(f"truncated after {target.tell()} of {expected_bytes} bytes")
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            key, url, f"could not be downloaded ({reason}); download it yourself and give the file"
        ) from None
    return file


def _download_from_timm(name: str, key: str) -> Path:
    file = _weights_cache() / f"{name.replace('/', '-')}.safetensors"
    if file.is_file():
        return file
    try:
        weights = timm.download(name)
    except ValueError as fault:
        raise ConfigError(key, name, f"{fault}; give {FORMATS}, {REMOTE_FORMATS}") from None
    except Exception as error:  # of the network, the hub's client or timm
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(key, name, f"timm could not load it ({reason}); give a file instead") from None
    which = next(iter(weights.encoders))
    network = weights.spec.build()
    network.load_state_dict(weights.encoders[which])
    timm.write(file, network, weights.spec, which or "target")
    return file
