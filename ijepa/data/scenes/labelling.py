"""Labels of a scene: the number of objects; distance, shape and colour of the nearest one."""

from functools import lru_cache

import numpy as np

from ijepa.data.scenes.layout import draw_scenes
from ijepa.data.scenes.scene import COLOURS, SHAPES, Floats, Ints, Scenes, Settings

DISTANCE_BINS = 6
EDGES_SEED, EDGES_SCENES = 20230119, 6000
"""Seed and number of the scenes that determine `distance_edges`; bin frequencies have a standard error of 0.5 %."""
CHUNK = 500
TASKS = ("count", "distance", "shape", "colour")


def labels(settings: Settings, seed: int, indices: Ints) -> dict[str, Ints]:
    """The class indices [B] of scenes ``indices`` [B] for each of TASKS; nothing is rendered."""
    return labels_and_objects(settings, seed, indices)[0]


def labels_and_objects(settings: Settings, seed: int, indices: Ints) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """As `labels`, with shape and colour of each object [B, M], nearest first, padded arbitrarily."""
    chunks = _draw_in_chunks(settings, seed, indices)
    chunk_labels = [labels_of(settings, scenes) for scenes in chunks]
    empty = np.zeros(0, np.int64)
    by_task = {task: np.concatenate([part[task] for part in chunk_labels]) if chunk_labels else empty for task in TASKS}
    objects = {"shape": [scenes.shape for scenes in chunks], "colour": [scenes.colour for scenes in chunks]}
    return by_task, {name: np.concatenate(parts) if parts else empty for name, parts in objects.items()}


def labels_of(settings: Settings, scenes: Scenes) -> dict[str, Ints]:
    """The class indices [B] of ``scenes`` for each of TASKS; see `class_names`."""
    return {
        "count": scenes.count - settings.min_objects,
        "distance": np.searchsorted(distance_edges(settings), scenes.distance[:, 0]).astype(np.int64),
        "shape": scenes.shape[:, 0],
        "colour": scenes.colour[:, 0],
    }


def class_names(settings: Settings, task: str) -> list[str]:
    """The class names of ``task``, one of TASKS."""
    edges = [f"{edge:.2f}" for edge in distance_edges(settings)]
    names = {
        "count": [str(count) for count in range(settings.min_objects, settings.max_objects + 1)],
        "distance": [f"{low}..{high}".removeprefix("..") for low, high in zip(["", *edges], [*edges, ""], strict=True)],
        "shape": list(SHAPES),
        "colour": list(COLOURS),
    }
    return names[task]


def distance_edges(settings: Settings) -> Floats:
    """The edges [5] between the six distance bins, which are about equally frequent.

    They depend only on the minimum and maximum number of objects, so all seeds and splits share them.
    """
    return _edges(settings.min_objects, settings.max_objects).copy()


@lru_cache
def _edges(min_objects: int, max_objects: int) -> Floats:
    settings = Settings(min_objects=min_objects, max_objects=max_objects)
    nearest = [scenes.distance[:, 0] for scenes in _draw_in_chunks(settings, EDGES_SEED, np.arange(EDGES_SCENES))]
    ordered = np.sort(np.concatenate(nearest))
    cuts = EDGES_SCENES * np.arange(1, DISTANCE_BINS) // DISTANCE_BINS
    return 0.5 * (ordered[cuts - 1] + ordered[cuts])


def _draw_in_chunks(settings: Settings, seed: int, indices: Ints) -> list[Scenes]:
    """Draws the scenes in chunks to limit memory; the scenes do not depend on the chunks."""
    indices = np.asarray(indices, dtype=np.int64)
    return [draw_scenes(settings, seed, indices[start : start + CHUNK]) for start in range(0, len(indices), CHUNK)]
