"""The feature cache: frozen features on disk, keyed by everything that they depend on."""

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
from ijepa.evaluation.runtime import Embed, PooledFeatures, Runtime
from ijepa.util.files import write_safetensors

VERSION = 1
"""Part of the key; increment it when the code computes other features for the same encoder and images."""


def cached_features(
    embed: Embed, images: Images, data: DataModule, batch_size: int, runtime: Runtime, folder: Path | None, title: str
) -> tuple[Tensor, Tensor]:
    """`extract` of ``images``, read from the feature cache if they are in it.

    Raw pixels are not cached, nor are images without a fingerprint, whose changes would go unnoticed.

    Args:
        embed: computes the features of a batch.
        images: the images of a split of ``data``.
        data: provides the transform.
        batch_size: images per forward pass.
        runtime: where ``embed`` runs.
        folder: of the cache; None: no cache.
        title: of the progress bar.

    Returns:
        See `extract`.
    """
    file = _cache_file(embed, images, data, folder)
    ranks = runtime.ranks
    stored = _load(file) if ranks.rank == 0 else None
    if ranks.broadcast(stored is not None):
        values, readable = stored or (torch.empty(0, 0), torch.empty(0, dtype=torch.bool))
        return ranks.joined(values), ranks.joined(readable)
    part = ranks.share(len(images))
    own = images if len(part) == len(images) else Subset(images, list(part))
    batches = progress(data.eval_dataloader(own, batch_size), title, -(-len(own) // batch_size))
    values, readable = (ranks.joined(tensor) for tensor in extract(embed, batches, runtime.device))
    if file is not None and ranks.rank == 0:
        try:
            write_safetensors(file, {"values": values, "readable": readable}, {})
        except OSError as error:  # a full disk must not end the evaluation
            print(f"features are not cached: {file}: {error.strerror}")
    return values, readable


def _load(file: Path | None) -> tuple[Tensor, Tensor] | None:
    if file is None or not file.is_file():
        return None
    try:
        tensors = load_file(file)
        return tensors["values"], tensors["readable"]
    except (SafetensorError, OSError, KeyError):
        print(f"{file} is corrupt and is computed again")
        return None


def _cache_file(embed: Embed, images: Images, data: DataModule, folder: Path | None) -> Path | None:
    if folder is None or not isinstance(embed, PooledFeatures) or not isinstance(images, Fingerprinted):
        return None
    fingerprint = images.fingerprint()
    if fingerprint is None:
        return None
    parts = [VERSION, torch.__version__, embed.fingerprint(), fingerprint, repr(data.eval_transform), data.channels]
    return folder / "features" / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.safetensors"
