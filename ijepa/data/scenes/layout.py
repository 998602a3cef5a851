"""Draws scene layouts from (seed, index) alone, such that no objects touch and none hides another.

Only +, -, *, / and square roots are used, because IEEE arithmetic then gives the same scenes on every machine.
"""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.scene import (
    BOUNDING_RADII,
    COLOURS,
    HEIGHTS,
    MATERIALS,
    RADII,
    SHAPES,
    SIZES,
    TAN_HALF_FOV,
    WIDTHS,
    Floats,
    Ints,
    Scenes,
    Settings,
    axes,
    inner,
    unit,
)
from ijepa.util.randomness import SceneStream, integers, uniforms

MAX_TRIES = 60
TRIES_AT_ONCE = 3
CANDIDATES = 10
"""Candidate positions per object; if none is free, the whole scene is drawn again."""
GAP = 0.2
"""Minimum distance between the bounding cylinders of two objects."""
MIN_VISIBLE = 0.4
"""Minimum `visible_fraction` of each object."""
NEAR_Y, FAR_Y, NEAR_X, FAR_X = -3.2, 3.8, 2.2, 3.8
"""Trapezoid on the ground for objects' centres: y from NEAR_Y, where |x| <= NEAR_X, to FAR_Y, where |x| <= FAR_X."""

CAMERA = np.array([0.0, -8.2, 7.1])
CAMERA_JITTER = 0.5
LIGHT = np.array([-0.66, -0.3, 0.85])
LIGHT_JITTER = 0.15

_grid = (np.arange(6) - 2.5) / 3
_disc = np.stack(np.meshgrid(_grid, _grid), axis=-1).reshape(-1, 2)
PROBES = 0.97 * _disc[(_disc**2).sum(axis=1) <= 1]
"""[S, 2]: points of the unit disc at which visibility is tested."""
_rows = ((-2.2, (-1.8, 0, 1.8)), (0.2, (-2.7, -0.9, 0.9, 2.7)), (2.8, (-2, 0, 2)))
FALLBACK_POSITIONS = np.array([(x, y) for y, row in _rows for x in row])
"""[10, 2]: positions at which small objects do not hide each other."""


def draw_scenes(settings: Settings, seed: int, indices: Ints) -> Scenes:
    """Scenes ``indices`` [B]; each depends only on its index, the seed, and the minimum and maximum number of objects.

    The bounding cylinders of any two objects are at least `GAP` apart, all objects lie within `TAN_HALF_FOV`, and
    `visible_fraction` is at least `MIN_VISIBLE` for each. A scene that violates this is drawn again, with the same
    number of objects and the same camera. After `MAX_TRIES` failures (fewer than one scene in 10**9) it gets small
    objects at `FALLBACK_POSITIONS`, which satisfy all of this.
    """
    max_objects = settings.max_objects
    drawn = uniforms(seed, SceneStream.VIEW, 0, indices, 8)
    count = settings.min_objects + integers(drawn[:, 0], max_objects - settings.min_objects + 1)
    camera = CAMERA + CAMERA_JITTER * (2 * drawn[:, 1:4] - 1)
    light = unit(LIGHT + LIGHT_JITTER * (2 * drawn[:, 4:7] - 1))
    scenes, ok = _draw_attempt(seed, 0, indices, count, camera, light, max_objects)
    pending = np.flatnonzero(~ok)
    for step in range(1, MAX_TRIES // TRIES_AT_ONCE):
        if not len(pending):
            break
        retried, ok = _draw_attempt(
            seed, step, indices[pending], count[pending], camera[pending], light[pending], max_objects
        )
        for part in fields(Scenes):
            getattr(scenes, part.name)[pending] = getattr(retried, part.name)
        pending = pending[~ok]
    if len(pending):
        scenes.size[pending] = 0
        scenes.position[pending] = FALLBACK_POSITIONS[:max_objects]
    return _nearest_first(scenes)


def _draw_attempt(
    seed: int, step: int, indices: Ints, count: Ints, camera: Floats, light: Floats, max_objects: int
) -> tuple[Scenes, NDArray[np.bool_]]:
    """The first valid of `TRIES_AT_ONCE` scenes per index (the last if none is), and whether it is valid: [B]."""
    batch, tries = len(indices), TRIES_AT_ONCE
    drawn = uniforms(seed, SceneStream.OBJECTS, step, indices, tries * max_objects * (5 + 2 * CANDIDATES))
    drawn = drawn.reshape(batch * tries, max_objects, 5 + 2 * CANDIDATES)
    scene_rows = np.repeat(np.arange(batch), tries)
    half = 2 * drawn[..., 4] - 1  # tangent of half the rotation angle, which is in -90..90 degrees
    scenes = Scenes(
        count=count[scene_rows],
        shape=integers(drawn[..., 0], len(SHAPES)),
        colour=integers(drawn[..., 1], len(COLOURS)),
        material=integers(drawn[..., 2], len(MATERIALS)),
        size=integers(drawn[..., 3], len(SIZES)),
        position=np.zeros((batch * tries, max_objects, 2)),
        rotation=np.stack([(1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)], axis=-1),
        distance=np.zeros((batch * tries, max_objects)),
        camera=camera[scene_rows],
        light=light[scene_rows],
    )
    # Large objects are placed first, which succeeds more often. Shape and colour are independent of size: no bias.
    scenes.size[:] = -np.sort(-np.where(scenes.present, scenes.size, -1), axis=1)
    np.maximum(scenes.size, 0, out=scenes.size)
    good = _place_objects(scenes, drawn[..., 5:].reshape(batch * tries, max_objects, CANDIDATES, 2))
    good &= _in_frame(scenes)
    good = good.reshape(batch, tries)
    chosen, valid = np.full(batch, tries - 1), np.zeros(batch, dtype=bool)
    for number in range(tries):  # most scenes need only the first
        pending = np.flatnonzero(good[:, number] & ~valid)
        visible = visible_fraction(scenes.rows(pending * tries + number)).min(axis=1) >= MIN_VISIBLE
        chosen[pending[visible]], valid[pending[visible]] = number, True
    return scenes.rows(np.arange(batch) * tries + chosen), valid


def _place_objects(scenes: Scenes, candidates: Floats) -> NDArray[np.bool_]:
    """Moves each object to its first candidate position that keeps the gap; [B] False if some object has none."""
    y = candidates[..., 1]
    x = (2 * candidates[..., 0] - 1) * (NEAR_X + (FAR_X - NEAR_X) * y)
    positions = np.stack([x, NEAR_Y + (FAR_Y - NEAR_Y) * y], axis=-1)
    reach = scenes.footprint + GAP / 2  # [B, M]
    present = scenes.present
    rows = np.arange(len(reach))
    all_placed = np.ones(len(reach), dtype=bool)
    scenes.position[:, 0] = positions[:, 0, 0]
    for k in range(1, reach.shape[1]):
        offset = positions[:, k, :, None] - scenes.position[:, None, :k]  # [B, C, k, 2]
        min_distance = reach[:, k, None] + reach[:, :k]  # [B, k]
        free = (offset[..., 0] ** 2 + offset[..., 1] ** 2 >= (min_distance * min_distance)[:, None]).all(axis=2)
        scenes.position[:, k] = positions[rows, k, free.argmax(axis=1)]
        all_placed &= np.any(free, axis=1) | ~present[:, k]
    return all_placed


def _in_frame(scenes: Scenes) -> NDArray[np.bool_]:
    """Whether the bounding spheres of all objects lie within `TAN_HALF_FOV`: [B]."""
    right, up, forward = (axis[:, None] for axis in axes(scenes.camera))
    offset = scenes.centre - scenes.camera[:, None]
    depth, radius = inner(offset, forward), RADII[scenes.size] * BOUNDING_RADII[scenes.shape]
    absent = ~scenes.present
    across, down = (
        np.abs(inner(offset, axis)) + radius * np.sqrt(1 + tangent * tangent) <= tangent * depth
        for axis, tangent in zip((right, up), TAN_HALF_FOV, strict=True)
    )
    return (absent | (across & down)).all(axis=1)


def visible_fraction(scenes: Scenes) -> Floats:
    """Fraction of each object that is visible: [B, M]; 1 beyond ``count``.

    It is a lower bound: an object is reduced to the disc that its inscribed sphere shows to the camera, and the others
    are enlarged to their bounding cylinders.
    """
    right, up, _ = axes(scenes.camera)
    radius = RADII[scenes.size] * np.minimum(WIDTHS, HEIGHTS)[scenes.shape]  # [B, M] radius of the inscribed sphere
    offsets = PROBES[:, :1] * right[:, None] + PROBES[:, 1:] * up[:, None]  # [B, S, 3]
    all_rays = (scenes.centre - scenes.camera[:, None])[:, :, None] + radius[..., None, None] * offsets[:, None]
    hidden = np.zeros(all_rays.shape[:3], dtype=bool)  # [B, M, S]
    present = scenes.present
    for k in range(scenes.shape.shape[1]):  # does cylinder k block the ray before it reaches the point, at 1?
        blocked = present & (k < scenes.count)[:, None]
        blocked[:, k] = False
        rows, objects = np.nonzero(blocked)
        rays = np.moveaxis(all_rays[rows, objects], -1, 0)  # [3, n, S]
        x, y = (scenes.camera[rows, :2] - scenes.position[rows, k]).T[:, :, None]
        a, b = rays[0] ** 2 + rays[1] ** 2, rays[0] * x + rays[1] * y
        root = np.sqrt(np.maximum(b * b - a * (x * x + y * y - (scenes.footprint[rows, k] ** 2)[:, None]), 0))
        height = scenes.camera[rows, 2, None]
        top = (2 * scenes.half_height[rows, k, None] - height) / rays[2]  # rays point down
        start, end = np.maximum((-b - root) / a, top), np.minimum((-b + root) / a, -height / rays[2])
        hidden[rows, objects] |= (start < np.minimum(end, 1)) & (root > 0)
    return np.where(present, 1 - hidden.sum(axis=2) / len(PROBES), 1.0)


def _nearest_first(scenes: Scenes) -> Scenes:
    """Sets the objects' distances and sorts the objects by them, in place."""
    _, _, forward = axes(scenes.camera)
    distance = inner(scenes.centre - scenes.camera[:, None], forward[:, None])
    distance = np.where(scenes.present, distance, np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    rows = np.arange(len(order))[:, None]
    scenes.distance = distance
    for name in ("shape", "colour", "material", "size", "position", "rotation", "distance"):
        setattr(scenes, name, getattr(scenes, name)[rows, order])
    return scenes
