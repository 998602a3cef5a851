"""What can be asked about a scene: how many objects, and how far away, of which shape and colour the nearest one is."""

from functools import lru_cache

import numpy as np

from ijepa.data.scenes.layout import draw
from ijepa.data.scenes.scene import COLOURS, SHAPES, Floats, Ints, Scenes, Settings

DISTANCE_BINS = 6
SAMPLE_SEED, SAMPLE = 20230119, 6000
"""The scenes whose distances fix the edges of the bins. A bin's share is off by 0.5 % (one standard deviation)."""
AT_ONCE = 500
TASKS = ("count", "distance", "shape", "colour")


def labels(settings: Settings, seed: int, indices: Ints) -> dict[str, Ints]:
    """The labels of the images with these ``indices`` [B], without rendering them: [B] for each of TASKS."""
    return labels_and_shapes(settings, seed, indices)[0]


def labels_and_shapes(settings: Settings, seed: int, indices: Ints) -> tuple[dict[str, Ints], Ints]:
    """`labels`, and the shape of each object, nearest first: [B, M], index into SHAPES; nothing beyond its scene's."""
    drawn = _drawn(settings, seed, indices)
    parts = [labels_of(settings, scenes) for scenes in drawn]
    empty = np.zeros(0, np.int64)
    found = {task: np.concatenate([part[task] for part in parts]) if parts else empty for task in TASKS}
    return found, np.concatenate([scenes.shape for scenes in drawn]) if drawn else empty


def labels_of(settings: Settings, scenes: Scenes) -> dict[str, Ints]:
    """The labels of drawn scenes, as class indices [B]: see `class_names`."""
    return {
        "count": scenes.count - settings.min_objects,
        "distance": np.searchsorted(distance_edges(settings), scenes.distance[:, 0]).astype(np.int64),
        "shape": scenes.shape[:, 0],
        "colour": scenes.colour[:, 0],
    }


def class_names(settings: Settings, task: str) -> list[str]:
    """The names of the classes of ``task``, one of TASKS."""
    edges = [f"{edge:.2f}" for edge in distance_edges(settings)]
    names = {
        "count": [str(count) for count in range(settings.min_objects, settings.max_objects + 1)],
        "distance": [f"{low}..{high}".removeprefix("..") for low, high in zip(["", *edges], [*edges, ""], strict=True)],
        "shape": list(SHAPES),
        "colour": list(COLOURS),
    }
    return names[task]


def distance_edges(settings: Settings) -> Floats:
    """The five distances between the six bins, equally frequent: a function of the number of objects allowed alone.

    Every seed, and so training and validation, shares them.
    """
    return _edges(settings.min_objects, settings.max_objects).copy()


@lru_cache
def _edges(min_objects: int, max_objects: int) -> Floats:
    settings = Settings(min_objects=min_objects, max_objects=max_objects)
    nearest = [scenes.distance[:, 0] for scenes in _drawn(settings, SAMPLE_SEED, np.arange(SAMPLE))]
    ordered = np.sort(np.concatenate(nearest))
    at = SAMPLE * np.arange(1, DISTANCE_BINS) // DISTANCE_BINS
    return 0.5 * (ordered[at - 1] + ordered[at])


def _drawn(settings: Settings, seed: int, indices: Ints) -> list[Scenes]:
    """The scenes in parts, which bounds the memory; no scene depends on the others of its part."""
    indices = np.asarray(indices, dtype=np.int64)
    return [draw(settings, seed, indices[start : start + AT_ONCE]) for start in range(0, len(indices), AT_ONCE)]
