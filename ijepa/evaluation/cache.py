"""A disk cache of frozen features, keyed by everything that they depend on."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Fingerprinted, Images, Subset
from ijepa.evaluation.features import extract
from ijepa.evaluation.progress import progress
from ijepa.evaluation.runtime import Embed, Pooled, Runtime
from ijepa.util.files import write_safetensors

VERSION = 1
"""Incremented when the same encoder gives other features for the same images."""


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
    ranks = runtime.ranks
    kept = _kept(file) if ranks.rank == 0 else None
    if ranks.broadcast(kept is not None):
        values, readable = kept or (torch.empty(0, 0), torch.empty(0, dtype=torch.bool))
        return ranks.joined(values), ranks.joined(readable)
    part = ranks.share(len(images))
    mine = images if len(part) == len(images) else Subset(images, list(part))
    batches = progress(data.eval_dataloader(mine, batch_size), title, -(-len(mine) // batch_size))
    values, readable = (ranks.joined(found) for found in extract(embed, batches, runtime.device))
    if file is not None and ranks.rank == 0:
        try:
            write_safetensors(file, {"values": values, "readable": readable}, {})
        except OSError as error:  # no reason to lose what was computed
            print(f"features are not cached: {file}: {error.strerror}")
    return values, readable


def _kept(file: Path | None) -> tuple[Tensor, Tensor] | None:
    if file is None or not file.is_file():
        return None
    try:
        kept = load_file(file)
        return kept["values"], kept["readable"]
    except (SafetensorError, OSError, KeyError):
        print(f"{file} is corrupt and is computed again")
        return None


def _file(embed: Embed, images: Images, data: DataModule, folder: Path | None) -> Path | None:
    if folder is None or not isinstance(embed, Pooled) or not isinstance(images, Fingerprinted):
        return None
    found = images.fingerprint()
    if found is None:
        return None
    parts = [VERSION, torch.__version__, embed.fingerprint(), found, repr(data.eval_transform), data.channels]
    return folder / "features" / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.safetensors"
