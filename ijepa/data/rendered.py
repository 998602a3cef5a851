"""data=scenes: rendered scenes, cached on disk after the first run."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ijepa import config
from ijepa.data import scenes
from ijepa.data.decode import MODES
from ijepa.data.loader import Loader, batched
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import write_json

VERSION = 2
"""Incremented whenever the renderer's images or labels change."""
ARRAY_NAMES = ("image", "depth", "instances")
PARALLEL_MINIMUM = 500
"""Minimum number of scenes that are rendered in several processes, with progress messages."""


@dataclass(frozen=True)
class RenderedScenes:
    """Scenes ``first`` to ``first + count - 1`` in a cache on disk; `prepare` renders them if needed.

    Attributes:
        images: [n, H, W, 3] uint8, memory-mapped.
        depth: [n, H, W] float16, memory-mapped; see `ijepa.data.scenes.RenderedScene`.
        instances: [n, H, W] uint8, memory-mapped; see `ijepa.data.scenes.RenderedScene`.
        labels: class indices by label set; available without rendering.
        maps: depth; segmentation by shape: 0 background, 1 sphere, 2 cube, 3 cylinder; by colour, likewise; instances.
    """

    maps = ("depth", "segmentation", "colour", "instances")

    settings: scenes.Settings
    seed: int
    first: int
    count: int
    channels: int
    cache: Path

    @property
    def cache_key(self) -> dict[str, Any]:
        """All values that the rendered arrays depend on."""
        numbers = {"seed": self.seed, "first": self.first, "count": self.count}
        return {"version": VERSION, **asdict(self.settings), **numbers}

    @property
    def folder(self) -> Path:
        key = hashlib.sha256(json.dumps(self.cache_key).encode()).hexdigest()[:16]
        return self.cache / f"scenes-{key}"

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        return self._array("image")

    @cached_property
    def depth(self) -> NDArray[np.float16]:
        return self._array("depth")

    @cached_property
    def instances(self) -> NDArray[np.uint8]:
        return self._array("instances")

    @cached_property
    def labels(self) -> dict[str, list[int]]:
        return self._drawn[0]

    @cached_property
    def _drawn(self) -> tuple[dict[str, list[int]], dict[str, NDArray[np.uint8]]]:
        """Class indices by label set; shapes and colours [n, M] of each scene's objects."""
        indices = np.arange(self.first, self.first + self.count)
        labels, objects = scenes.labels_and_objects(self.settings, self.seed, indices)
        by_task = {task: values.tolist() for task, values in labels.items()}
        return by_task, {name: values.astype(np.uint8) for name, values in objects.items()}

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"scene {self.first + index}"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.images[index])).convert(MODES[self.channels])

    def read_map(self, index: int, kind: str) -> Tensor:
        if kind == "depth":
            depth = torch.from_numpy(self.depth[index].astype(np.float32))
            return torch.where(depth < scenes.FAR, depth, 0)  # 0: unknown (sky and distant ground)
        if kind == "instances":
            return torch.from_numpy(self.instances[index].astype(np.int64))
        objects = self._drawn[1]["shape" if kind == "segmentation" else kind][index]
        classes = np.concatenate([[0], 1 + objects.astype(np.int64)])
        return torch.from_numpy(classes[self.instances[index]])

    def fingerprint(self) -> str:
        """Changes with any setting that the images depend on."""
        return f"{self.folder.name} {self.channels}"

    def prepare(self, workers: int) -> None:
        """Renders the scenes unless they are cached, atomically: an existing folder is complete.

        Local rank 0 of each machine renders with ``workers`` processes; the other ranks wait.

        Raises:
            ConfigError: if the cache is not writable.
        """
        if int(os.environ.get("LOCAL_RANK", "0")) > 0:
            while not self.folder.is_dir():  # local rank 0 renders; if that fails, all ranks are ended
                time.sleep(0.2)
        if self.folder.is_dir():
            return
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.cache))
        except OSError as error:
            raise ConfigError("data.scenes.cache", self.cache, f"cannot be written: {error.strerror}") from None
        try:
            _render(self, temporary, workers)
            write_json(temporary / "settings.json", self.cache_key)
            temporary.chmod(0o755)
            temporary.rename(self.folder)
        except OSError as error:
            if not self.folder.is_dir():  # else another process has just rendered it
                raise ConfigError("data.scenes.cache", self.cache, f"cannot be written: {error.strerror}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _array(self, part: str) -> NDArray[Any]:
        return np.load(self.folder / f"{part}.npy", mmap_mode="r")


class RenderDataset(Dataset[Any]):
    """Renders scenes on access: image, depth and instances, by index."""

    def __init__(self, rendered: RenderedScenes) -> None:
        self.rendered = rendered

    def __len__(self) -> int:
        return self.rendered.count

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
        drawn = scenes.render(self.rendered.settings, self.rendered.seed, self.rendered.first + index)
        return drawn.image, drawn.depth.astype(np.float16), drawn.instances


def scene_splits(data: config.Data) -> tuple[RenderedScenes, RenderedScenes, dict[str, list[str]]]:
    """Training scenes, validation scenes, and class names by label set; nothing is rendered.

    Raises:
        UserError: if a setting is missing or out of range.
    """
    section = data.scenes
    if section is None:
        raise UserError("data.scenes is not set; add data=scenes")
    if data.channels not in (1, 3):
        raise ConfigError("data.channels", data.channels, "scenes are RGB; try 3, or 1 for grey")
    if min(data.image_size) < scenes.MIN_SIDE:
        raise ConfigError("data.image_size", data.image_size, f"scenes need at least {scenes.MIN_SIDE} pixels per side")
    if section.min_objects > section.max_objects:
        raise ConfigError("data.scenes.min_objects", section.min_objects, f"above max_objects={section.max_objects}")
    settings = scenes.Settings((data.image_size[0], data.image_size[1]), section.min_objects, section.max_objects)
    train, val = (
        RenderedScenes(settings, section.seed, first, count, data.channels, Path(section.cache).expanduser())
        for first, count in ((0, section.train), (section.train, section.val))
    )
    return train, val, {task: scenes.class_names(settings, task) for task in scenes.TASKS}


def _render(rendered: RenderedScenes, folder: Path, workers: int) -> None:
    count, (height, width) = rendered.count, rendered.settings.image_size
    files = [
        open_memmap(folder / f"{part}.npy", mode="w+", dtype=kind, shape=(count, height, width, *rest))
        for part, kind, rest in zip(ARRAY_NAMES, (np.uint8, np.float16, np.uint8), ((3,), (), ()), strict=True)
    ]
    processes = workers if count >= PARALLEL_MINIMUM else 0
    loader = Loader(RenderDataset(rendered), batched(count, 32), processes, list)
    done, printed = 0, time.monotonic()
    if count >= PARALLEL_MINIMUM:
        print(f"scenes   rendering {count}, once; cached in {folder.parent}", flush=True)
    for batch in loader:
        for index, arrays in enumerate(batch):
            for file, values in zip(files, arrays, strict=True):
                file[done + index] = values
        done += len(batch)
        if count >= PARALLEL_MINIMUM and time.monotonic() - printed > 10:
            printed = time.monotonic()
            print(f"         {done} of {count}", flush=True)
    for file in files:
        file.flush()
