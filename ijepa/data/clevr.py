"""data=clevr: CLEVR v1.0, labelled as in the paper's two tasks."""

import os
from bisect import bisect_left
from itertools import pairwise
from typing import Any

from ijepa import config
from ijepa.data.download import Archive, fetch
from ijepa.data.folders import directory, readable
from ijepa.data.listed import read_json, reading
from ijepa.data.sets import Files, Source
from ijepa.util.errors import ConfigError

CLEVR = Archive(
    "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip", "b11922020e72d0cd9154779b2d3d07d2", "CLEVR_v1.0", "18 GB"
)
COUNTS = range(3, 11)
"""Objects in a scene."""
EDGES = (8, 8.5, 9, 9.5, 10, 100)
"""Upper bounds (inclusive) of the distance classes."""
KEYS = ("scenes", "image_filename", "objects", "pixel_coords")
"""The keys of a scene file that labels need; the whole file would take a gigabyte of memory."""


def clevr(data: config.Data, seed: int) -> Source:
    """CLEVR: 70,000 and 15,000 rendered scenes of 320x480 pixels, by count and by distance of the nearest object.

    ``data.root`` is its folder, or the folder that contains it; if it is missing, it is downloaded there.

    Raises:
        UserError: if something is missing.
    """
    root = directory(data)
    folders = [root, root / CLEVR.folder]
    found = [folder for folder in folders if any((folder / name).is_dir() for name in ("images", "scenes"))]
    folder = found[0] if found else fetch(CLEVR, root)
    files = []
    for part in ("train", "val"):
        images, file = folder / "images" / part, folder / "scenes" / f"CLEVR_{part}_scenes.json"
        if not images.is_dir():
            raise ConfigError("data.root", data.root, f"no folder {images}")
        content = read_json(file, data, KEYS)
        with reading(file, data):
            names = [os.path.join(images, scene["image_filename"]) for scene in content["scenes"]]
            if not names:
                raise ValueError("it lists no scenes")
            labels = [_labels(scene["objects"]) for scene in content["scenes"]]
        tasks = {task: [scene[task] for scene in labels] for task in labels[0]}
        files.append(readable(Files(names, tasks, data.channels, data.max_pixels), data))
    train, val = files
    return Source(train, val, {"count": [f"{count} objects" for count in COUNTS], "distance": _distances()})


def _labels(objects: list[dict[str, Any]]) -> dict[str, int]:
    """The labels of a scene.

    Raises:
        KeyError, ValueError, TypeError: if it is not a CLEVR scene.
    """
    if len(objects) not in COUNTS:
        raise ValueError(f"a scene has {len(objects)} objects")
    distance = min(float(item["pixel_coords"][2]) for item in objects)
    if not 0 < distance <= EDGES[-1]:
        raise ValueError(f"an object is {distance} away")
    return {"count": COUNTS.index(len(objects)), "distance": bisect_left(EDGES, distance)}


def _distances() -> list[str]:
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(EDGES[:-1])]
    return [f"up to {EDGES[0]:g}", *inner, f"above {EDGES[-2]:g}"]
