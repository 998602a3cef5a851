"""Frozen features on disk, under the name of all that they depend on."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Images, Known
from ijepa.evaluation.features import Embed, Pooled, Runtime, extract
from ijepa.evaluation.progress import progress
from ijepa.files import write_safetensors

VERSION = 1
"""Counts up when the same encoder makes other features of the same images."""


def features(
    embed: Embed, images: Images, data: DataModule, batch_size: int, runtime: Runtime, folder: Path | None, title: str
) -> tuple[Tensor, Tensor]:
    """What `extract` makes of ``images``; from ``folder`` where the same has been made before.

    Args:
        embed: raw pixels are never kept, nor images that cannot tell whether they have changed.
        images: of ``data``.
        data: brings the transform.
        batch_size: images per forward pass.
        runtime: where ``embed`` runs.
        folder: None to keep nothing.
        title: of the progress bar.
    """
    file = _file(embed, images, data, folder)
    if file is not None and file.is_file():
        try:
            kept = load_file(file)
            return kept["values"], kept["readable"]
        except (SafetensorError, OSError, KeyError):
            print(f"{file} is damaged, and made anew")
    batches = progress(data.eval_dataloader(images, batch_size), title, -(-len(images) // batch_size))
    values, readable = extract(embed, batches, runtime.device)
    if file is not None:
        try:
            write_safetensors(file, {"values": values, "readable": readable}, {})
        except OSError as error:  # no reason to lose what was computed
            print(f"features are not kept: {file}: {error.strerror}")
    return values, readable


def _file(embed: Embed, images: Images, data: DataModule, folder: Path | None) -> Path | None:
    if folder is None or not isinstance(embed, Pooled) or not isinstance(images, Known):
        return None
    found = images.fingerprint()
    if found is None:
        return None
    parts = [VERSION, torch.__version__, embed.fingerprint(), found, repr(data.eval_transform), data.channels]
    return folder / "features" / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.safetensors"
