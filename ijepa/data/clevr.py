"""data=clevr: CLEVR v1.0, labelled as in the paper's two tasks."""

import os
from bisect import bisect_left
from itertools import pairwise
from typing import Any

from ijepa import config
from ijepa.data.download import Archive, fetch_archive
from ijepa.data.files import Files
from ijepa.data.folders import check_readable, existing_root, value_limit
from ijepa.data.listed import one_line_errors, read_json
from ijepa.data.sets import Source
from ijepa.util.errors import ConfigError

CLEVR = Archive(
    "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip", "b11922020e72d0cd9154779b2d3d07d2", "CLEVR_v1.0", "18 GB"
)
OBJECT_COUNTS = range(3, 11)
"""Objects in a scene."""
DISTANCE_EDGES = (8, 8.5, 9, 9.5, 10, 100)
"""Upper bounds (inclusive) of the distance classes."""
JSON_KEYS = ("scenes", "image_filename", "objects", "pixel_coords")
"""The keys of a scene file that labels are computed from; the whole file would take a gigabyte of memory."""


def clevr(data: config.Data, seed: int) -> Source:
    """CLEVR: 70,000 and 15,000 rendered scenes of 320x480 pixels, labelled by count and distance of the nearest object.

    ``data.root`` is the folder CLEVR_v1.0 or its parent; if CLEVR is missing, it is downloaded there.

    Raises:
        UserError: if images or scene files are missing or malformed.
    """
    root = existing_root(data)
    folders = [root, root / CLEVR.folder]
    existing = [folder for folder in folders if any((folder / name).is_dir() for name in ("images", "scenes"))]
    folder = existing[0] if existing else fetch_archive(CLEVR, root)
    files = []
    for part in ("train", "val"):
        images, scene_file = folder / "images" / part, folder / "scenes" / f"CLEVR_{part}_scenes.json"
        if not images.is_dir():
            raise ConfigError("data.root", data.root, f"no folder {images}")
        content = read_json(scene_file, data, JSON_KEYS)
        with one_line_errors(scene_file, data):
            names = [os.path.join(images, scene["image_filename"]) for scene in content["scenes"]]
            if not names:
                raise ValueError("it lists no scenes")
            labels = [_labels(scene["objects"]) for scene in content["scenes"]]
        tasks = {task: [scene[task] for scene in labels] for task in labels[0]}
        images_of_part = Files(names, tasks, data.channels, data.max_pixels, limit=value_limit(data))
        files.append(check_readable(images_of_part, data))
    train, val = files
    return Source(train, val, {"count": [f"{count} objects" for count in OBJECT_COUNTS], "distance": _distance_names()})


def _labels(objects: list[dict[str, Any]]) -> dict[str, int]:
    """The class indices of a scene, by task.

    Raises:
        KeyError, ValueError, TypeError: if ``objects`` are not those of a CLEVR scene.
    """
    if len(objects) not in OBJECT_COUNTS:
        raise ValueError(f"a scene has {len(objects)} objects")
    distance = min(float(item["pixel_coords"][2]) for item in objects)
    if not 0 < distance <= DISTANCE_EDGES[-1]:
        raise ValueError(f"an object is {distance} away")
    return {"count": OBJECT_COUNTS.index(len(objects)), "distance": bisect_left(DISTANCE_EDGES, distance)}


def _distance_names() -> list[str]:
    middle = [f"{low:g} to {high:g}" for low, high in pairwise(DISTANCE_EDGES[:-1])]
    return [f"up to {DISTANCE_EDGES[0]:g}", *middle, f"above {DISTANCE_EDGES[-2]:g}"]
