"""Reads weights from a file of any supported format, without running code from it."""

import argparse
import contextlib
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open

from ijepa.config.custom import TARGET
from ijepa.interop import meta, native, timm, transformers
from ijepa.interop.weights import SPEC_KEY, State, Weights
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import read_config
from ijepa.util.errors import UserError

FORMATS = (
    "a run folder, a checkpoint (.ckpt), encoder.safetensors, the reference implementation's .pth.tar, a state dict of "
    "a timm VisionTransformer, a folder of transformers' IJepaModel"
)


def read(file: Path, heads: int | None = None) -> Weights:
    """The weights in ``file``; never partial.

    Args:
        file: a file from `ijepa.interop.loading.select_file`.
        heads: number of attention heads, if the file does not store it; None: as for the published size.

    Raises:
        HeadsError: if ``heads`` is needed.
        ValueError: if it is not a weights file, or incomplete; the message is one line.
    """
    try:
        if file.exists():  # a folder of shards has no such file
            file.open("rb").close()
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from None
    if file.name == transformers.WEIGHTS and (file.parent / transformers.CONFIG).is_file():
        config = transformers.described(file.parent)
        if "architecture" not in config or "model_type" in config:
            return transformers.read(file.parent)
        return timm.read_hub(config, tensors(file)[1], heads)
    if file.suffix == ".safetensors":
        metadata, state = tensors(file)
        if SPEC_KEY in metadata:
            _trust(file, native.described(metadata))
            return native.read_export(metadata, state)
        if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in state):
            raise ValueError(
                f"one of transformers' files without {transformers.CONFIG} in the same folder; give the folder"
            )
        contents: dict[str, Any] = dict(state)
    else:
        contents = load(file, mapped=zipfile.is_zipfile(file))  # ten gigabytes, of the largest, are not all wanted
    if meta.is_meta(contents):
        return meta.read(contents, heads)
    if SPEC_KEY in contents:
        _trust(file, contents[SPEC_KEY])
        return native.read_checkpoint(contents)
    nested = timm.nested(contents)
    if nested is not None:
        return timm.read(nested, heads)
    held = ", ".join(sorted(map(str, contents))[:3])
    raise ValueError(f"expected the weights of an I-JEPA, found {held or 'nothing'}")


def _trust(file: Path, described: Any) -> None:
    """Raises ValueError where a file alone would make this software import a module: one from elsewhere could name any.

    Its run's folder, or code that has imported the module, vouches for the class.
    """
    if not isinstance(described, dict) or described.get("kind") != "custom":
        return
    name = str(described.get("name"))
    module = name.rpartition(".")[0]
    if module in sys.modules:
        return
    with contextlib.suppress(UserError):
        if OmegaConf.select(read_config(RunFolder.of(file).config), f"model.{TARGET}") == name:
            return
    raise ValueError(f"its encoder is a class of its own, {name}; give its run's folder, or import {module} first")


def load(path: Path, mapped: bool = False) -> dict[str, Any]:
    """A pickled checkpoint, loaded without running code from it; ``mapped``: its tensors stay on disk until used.

    Raises:
        ValueError: if it contains anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that the next line refuses anyway
            with torch.serialization.safe_globals([argparse.Namespace]):  # timm keeps its options in one
                contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # what is no checkpoint makes the unpickler raise anything
        raise ValueError(
            "not a checkpoint, a truncated one, or one that contains more than tensors and plain values"
        ) from None
    if not isinstance(contents, dict):
        raise ValueError(f"contains a {type(contents).__name__}")
    return contents


def tensors(file: Path) -> tuple[dict[str, str], State]:
    """Metadata and tensors of a safetensors file; raises ValueError if it is not one."""
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return opened.metadata() or {}, state
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot be read ({error})") from None
