"""data=scenes: rendered scenes, kept on disk after the first run."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ijepa import config
from ijepa.data import scenes
from ijepa.data.decode import MODES
from ijepa.data.workers import start_worker
from ijepa.errors import ConfigError, UserError
from ijepa.files import write_json

VERSION = 1
"""Counts up when the renderer draws other pictures or labels."""
PARTS = ("image", "depth", "instances")
MANY = 500
"""So many scenes are worth several processes, and a word about them."""


class Stored:
    """Scenes of one part in a cache's folder, mapped into memory.

    Attributes:
        images: [n, H, W, 3] uint8.
        depth: [n, H, W] float16, see `ijepa.data.scenes.Rendered`.
        instances: [n, H, W] uint8.
        labels: by task.
    """

    def __init__(self, folder: Path, channels: int, labels: dict[str, NDArray[np.int64]]) -> None:
        self.images, self.depth, self.instances = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in PARTS)
        self.mode = MODES[channels]
        self.labels = {task: values.tolist() for task, values in labels.items()}

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"scene {index}"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.images[index])).convert(self.mode)


class Rendering(Dataset[Any]):
    """The parts of a scene, by index."""

    def __init__(self, settings: scenes.Settings, seed: int, first: int, count: int) -> None:
        self.settings = settings
        self.seed = seed
        self.first = first
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
        drawn = scenes.render(self.settings, self.seed, self.first + index)
        return drawn.image, drawn.depth.astype(np.float16), drawn.instances


def stored(data: config.Data, workers: int) -> tuple[Stored, Stored, dict[str, list[str]]]:
    """Training scenes, validation scenes, and class names by task; rendered first where the cache does not hold them.

    Raises:
        UserError: when the settings do not fit together, or the cache cannot be written.
    """
    chosen = data.scenes
    if chosen is None:
        raise UserError("data.scenes is not set; add data=scenes")
    if data.channels not in (1, 3):
        raise ConfigError("data.channels", data.channels, "scenes are RGB; 3, or 1 for grey, would do")
    if min(data.image_size) < scenes.LEAST_SIDE:
        raise ConfigError("data.image_size", data.image_size, f"scenes need at least {scenes.LEAST_SIDE} pixels a side")
    if chosen.min_objects > chosen.max_objects:
        raise ConfigError("data.scenes.min_objects", chosen.min_objects, f"above max_objects={chosen.max_objects}")
    settings = scenes.Settings((data.image_size[0], data.image_size[1]), chosen.min_objects, chosen.max_objects)
    parts = []
    for first, count in ((0, chosen.train), (chosen.train, chosen.val)):
        folder = _cached(settings, chosen.seed, first, count, Path(chosen.cache).expanduser(), workers)
        with np.load(folder / "labels.npz") as labels:
            parts.append(Stored(folder, data.channels, dict(labels)))
    return parts[0], parts[1], {task: scenes.class_names(settings, task) for task in scenes.TASKS}


def _cached(settings: scenes.Settings, seed: int, first: int, count: int, cache: Path, workers: int) -> Path:
    """The folder of scenes ``first`` to ``first + count``; whole, or not there."""
    values = {"version": VERSION, **asdict(settings), "seed": seed, "first": first, "count": count}
    key = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
    folder = cache / f"scenes-{key}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=cache))
    except OSError as error:
        raise ConfigError("data.scenes.cache", cache, f"cannot be written: {error.strerror}") from None
    try:
        _render(settings, seed, first, count, temporary, workers)
        write_json(temporary / "settings.json", values)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process was faster
            raise ConfigError("data.scenes.cache", cache, f"cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _render(settings: scenes.Settings, seed: int, first: int, count: int, folder: Path, workers: int) -> None:
    height, width = settings.image_size
    files = [
        open_memmap(folder / f"{part}.npy", mode="w+", dtype=kind, shape=(count, height, width, *rest))
        for part, kind, rest in zip(PARTS, (np.uint8, np.float16, np.uint8), ((3,), (), ()), strict=True)
    ]
    speaks = os.environ.get("LOCAL_RANK", "0") == "0" and count >= MANY
    loader = DataLoader(
        Rendering(settings, seed, first, count),
        batch_size=32,
        num_workers=workers if count >= MANY else 0,
        collate_fn=list,
        worker_init_fn=start_worker,
    )
    done, printed = 0, time.monotonic()
    if speaks:
        print(f"scenes   renders {count}, once: they are kept in {folder.parent}", flush=True)
    for batch in loader:
        for index, parts in enumerate(batch):
            for file, values in zip(files, parts, strict=True):
                file[done + index] = values
        done += len(batch)
        if speaks and time.monotonic() - printed > 10:
            printed = time.monotonic()
            print(f"         {done} of {count}", flush=True)
    for file in files:
        file.flush()
    labels = scenes.labels(settings, seed, np.arange(first, first + count))
    np.savez(folder / "labels.npz", **labels)  # type: ignore[arg-type]  # keyword arguments are arrays
