"""The images that methods are compared on, in memory, with fixed parts for training, search and report."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ijepa import compose_config
from ijepa.data import sources
from ijepa.data.sets import CLASS, Source, Subset, Uint8Images
from ijepa.util.errors import UserError
from ijepa.util.files import replacing

Part = Literal["search", "report"]

SPLIT_SEED = 0
HELD_OUT = 5000
"""CIFAR-10's training images less two parts of so many: choices look at the first, tables are read from the second."""
SEARCH_LABELS = 10_000
"""Labelled training images from which accuracy is measured in search; all of them in reports."""


def load(name: str, root: Path | None, part: Part) -> Source:
    """The images called ``name``: ``cifar10`` (a folder per class in ``root``), ``scenes``, ``digits`` or ``folder``.

    Only CIFAR-10 has a part for search: of the others, validation images serve for both.

    Raises:
        UserError: if ``root`` does not hold them.
    """
    if name == "cifar10":
        if root is None:
            raise UserError("cifar10 needs --root: a folder of its training images, with one folder per class")
        return _cifar10(root, part)
    overrides = [f"data={name}", *([f"data.root={root}"] if root else [])]
    source = sources.build(compose_config(*overrides).data, seed=0)
    source.prepare()
    return source


def labelled(source: Source, part: str) -> Source:
    """``source`` with the training images whose labels are used: all, or in search a fixed part, which is faster."""
    if part == "report" or len(source.train) <= SEARCH_LABELS:
        return source
    chosen = np.random.default_rng(SPLIT_SEED).permutation(len(source.train))[:SEARCH_LABELS]
    return replace(source, train=Subset(source.train, np.sort(chosen).tolist()))


def _cifar10(root: Path, part: Part) -> Source:
    """40,000 training images, and 5,000 for evaluation: those of the part."""
    if not root.is_dir():
        raise UserError(f"--root={root}: no such folder")
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    paths = [path for name in names for path in sorted((root / name).iterdir())]
    if len(paths) != 50_000 or len(names) != 10:
        raise UserError(f"--root={root}: has {len(paths)} images in {len(names)} folders, expected 50000 in 10")
    digest = hashlib.sha256("\n".join(map(str, paths)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("IJEPA_CACHE", "~/.cache/ijepa")).expanduser() / "benchmarks"
    stored = cache / f"cifar10-{digest}.npy"
    if not stored.exists():
        images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
        with replacing(stored) as temporary, temporary.open("wb") as file:
            np.save(file, images)
    images = np.load(stored, mmap_mode="r")
    labels = np.array([names.index(path.parent.name) for path in paths])
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    train, search, report = np.split(order, [len(order) - 2 * HELD_OUT, len(order) - HELD_OUT])
    held_out = {"search": search, "report": report}[part]
    train_images, val_images = (
        Uint8Images(images[rows], {CLASS: labels[rows].tolist()}, 3, f"CIFAR-10 {title}")
        for rows, title in ((np.sort(train), "training"), (np.sort(held_out), part))
    )
    return Source(train_images, val_images, {CLASS: names})
