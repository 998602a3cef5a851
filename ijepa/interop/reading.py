"""Reads weights from a file of any supported format, without running code from it."""

import argparse
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ijepa.interop import meta, native, timm, transformers
from ijepa.interop.weights import DECODER_KEY, SPEC_KEY, State, Weights
from ijepa.util.reading import check_regular

FORMATS = (
    "a run folder, a checkpoint (.ckpt), encoder.safetensors, the reference implementation's .pth.tar, a state dict of "
    "a timm VisionTransformer, a folder of transformers' IJepaModel"
)


def read(file: Path, heads: int | None = None) -> Weights:
    """The weights in ``file``, which must be complete.

    Args:
        file: a file from `ijepa.interop.loading.select_file`.
        heads: number of attention heads, if the file does not store it; None: as for the published size.

    Raises:
        HeadsError: if ``heads`` is needed.
        UntrustedError: if it names a class that the user has not allowed.
        ValueError: if the file is not a weights file, or incomplete; the message is one line.
    """
    try:
        if file.exists():  # a folder of shards has no such file
            check_regular(file)
            file.open("rb").close()
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from None
    if file.name == transformers.WEIGHTS and (file.parent / transformers.CONFIG).is_file():
        config = transformers.read_config(file.parent)
        if "architecture" not in config or "model_type" in config:
            return transformers.read(file.parent)
        return timm.read_hub(config, read_safetensors(file)[1], heads)
    if file.suffix == ".safetensors":
        metadata, state = read_safetensors(file)
        if SPEC_KEY in metadata:
            return native.read_export(metadata, state, file)
        if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in state):
            raise ValueError(
                f"one of transformers' files without {transformers.CONFIG} in the same folder; give the folder"
            )
        contents: dict[str, Any] = dict(state)
    else:
        contents = load_pickle(file, mapped=zipfile.is_zipfile(file))  # the largest have 10 GB, of which part is used
    if meta.is_meta(contents):
        return meta.read(contents, heads)
    if DECODER_KEY in contents:
        raise ValueError("a decoder's checkpoint, without an encoder of its own: that is what its run calls checkpoint")
    if SPEC_KEY in contents:
        return native.read_checkpoint(contents, file)
    nested = timm.find_state_dict(contents)
    if nested is not None:
        return timm.read(nested, heads)
    keys = ", ".join(sorted(map(str, contents))[:3])
    raise ValueError(f"expected the weights of an I-JEPA, found {keys or 'nothing'}")


def load_pickle(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Loads a pickled checkpoint without running code from it.

    Args:
        path: the file.
        mapped: memory-map the tensors, which are then read when used.

    Raises:
        ValueError: if it is not a checkpoint, truncated, or contains more than tensors and plain values.
    """
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are rejected anyway
            with torch.serialization.safe_globals([argparse.Namespace]):  # timm stores its options in a Namespace
                contents = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # the unpickler can raise anything
        raise ValueError(
            "not a checkpoint, a truncated one, or one that contains more than tensors and plain values"
        ) from None
    if not isinstance(contents, dict):
        raise ValueError(f"contains a {type(contents).__name__}")
    nested = contents.get("state_dict")
    for name, tensor in [*contents.items(), *(nested.items() if isinstance(nested, dict) else ())]:
        dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if dense and tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} declares {tensor.nbytes} bytes, more than the file holds of it")
    return contents


def _check_archive(path: Path) -> None:
    """Raises ValueError for an archive with compressed parts, which torch never writes: it may unfold without limit."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [part.filename for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch says what is wrong
    if packed:
        raise ValueError(f"an archive whose {packed[0]} is compressed, as torch does not write it")


def read_safetensors(file: Path) -> tuple[dict[str, str], State]:
    """Metadata and tensors of a safetensors file; raises ValueError if it cannot be read."""
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return opened.metadata() or {}, state
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot be read ({error})") from None
