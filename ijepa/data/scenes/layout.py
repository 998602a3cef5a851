"""Draws scenes: what stands where, by (seed, index) alone, so that nothing touches and nothing hides.

Only +, -, *, / and square roots are used: IEEE arithmetic gives the same scenes on every machine.
"""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.scene import (
    COLOURS,
    HEIGHT,
    MATERIALS,
    RADII,
    REACH,
    SHAPES,
    SIZES,
    VIEW,
    WIDTH,
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
"""Places that are tried for an object before the scene is given up."""
GAP = 0.2
"""Least distance between the vertical cylinders around two objects."""
MIN_VISIBLE = 0.4
NEAR, FAR, NARROW, WIDE = -3.2, 3.8, 2.2, 3.8
"""The part of the ground for objects' centres: a trapezoid, y from NEAR to FAR, |x| up to NARROW there and WIDE."""

CAMERA = np.array([0.0, -8.2, 7.1])
CAMERA_JITTER = 0.5
LIGHT = np.array([-0.66, -0.3, 0.85])
LIGHT_JITTER = 0.15

_grid = (np.arange(6) - 2.5) / 3
_disc = np.stack(np.meshgrid(_grid, _grid), axis=-1).reshape(-1, 2)
PROBES = 0.97 * _disc[(_disc**2).sum(axis=1) <= 1]
"""[S, 2]: points spread over the unit disc."""
SPARE = np.array([(x, y) for y, row in ((-2.2, (-1.8, 0, 1.8)), (0.2, (-2.7, -0.9, 0.9, 2.7)), (2.8, (-2, 0, 2)))
                  for x in row])  # fmt: skip
"""[10, 2]: places at which small objects hide none of each other."""


def draw(settings: Settings, seed: int, indices: Ints) -> Scenes:
    """The scenes with these ``indices`` [B]; a scene depends on the number of objects allowed, seed and its index.

    Between the vertical cylinders around any two objects there is a distance of at least `GAP`, all lie within `VIEW`,
    and of the disc that an object's inscribed sphere shows to the camera at least `MIN_VISIBLE` is not behind other
    objects' vertical cylinders (these contain the objects: what is seen is more). A scene that fails is drawn again,
    with the same number of objects and the same camera; one that fails `MAX_TRIES` times (fewer than one in 10**9)
    has small objects at fixed places, for which all of this holds, too.
    """
    most = settings.max_objects
    drawn = uniforms(seed, SceneStream.VIEW, 0, indices, 8)
    count = settings.min_objects + integers(drawn[:, 0], most - settings.min_objects + 1)
    camera = CAMERA + CAMERA_JITTER * (2 * drawn[:, 1:4] - 1)
    light = unit(LIGHT + LIGHT_JITTER * (2 * drawn[:, 4:7] - 1))
    scenes, ok = _try(seed, 0, indices, count, camera, light, most)
    pending = np.flatnonzero(~ok)
    for step in range(1, MAX_TRIES // TRIES_AT_ONCE):
        if not len(pending):
            break
        some, ok = _try(seed, step, indices[pending], count[pending], camera[pending], light[pending], most)
        for part in fields(Scenes):
            getattr(scenes, part.name)[pending] = getattr(some, part.name)
        pending = pending[~ok]
    if len(pending):
        scenes.size[pending] = 0
        scenes.place[pending] = SPARE[:most]
    return _nearest_first(scenes)


def _try(
    seed: int, step: int, indices: Ints, count: Ints, camera: Floats, light: Floats, most: int
) -> tuple[Scenes, NDArray[np.bool_]]:
    """The first good one of `TRIES_AT_ONCE` scenes per index (the last where none is), and whether it is good: [B]."""
    batch, tries = len(indices), TRIES_AT_ONCE
    drawn = uniforms(seed, SceneStream.OBJECTS, step, indices, tries * most * (5 + 2 * CANDIDATES))
    drawn = drawn.reshape(batch * tries, most, 5 + 2 * CANDIDATES)
    repeated = np.repeat(np.arange(batch), tries)
    half = 2 * drawn[..., 4] - 1  # tangent of half the angle: turns by -90..90 degrees
    scenes = Scenes(
        count=count[repeated],
        shape=integers(drawn[..., 0], len(SHAPES)),
        colour=integers(drawn[..., 1], len(COLOURS)),
        material=integers(drawn[..., 2], len(MATERIALS)),
        size=integers(drawn[..., 3], len(SIZES)),
        place=np.zeros((batch * tries, most, 2)),
        turn=np.stack([(1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)], axis=-1),
        distance=np.zeros((batch * tries, most)),
        camera=camera[repeated],
        light=light[repeated],
    )
    # Large ones first: they find a place more easily. Shape and colour are independent of the size, so no bias.
    scenes.size[:] = -np.sort(-np.where(scenes.present, scenes.size, -1), axis=1)
    np.maximum(scenes.size, 0, out=scenes.size)
    good = _place(scenes, drawn[..., 5:].reshape(batch * tries, most, CANDIDATES, 2))
    good &= _framed(scenes)
    placed = np.flatnonzero(good)
    good[placed] = visible(scenes.rows(placed)).min(axis=1) >= MIN_VISIBLE
    good = good.reshape(batch, tries)
    chosen = np.arange(batch) * tries + np.where(good.any(axis=1), good.argmax(axis=1), tries - 1)
    return scenes.rows(chosen), np.asarray(good.any(axis=1))


def _place(scenes: Scenes, drawn: Floats) -> NDArray[np.bool_]:
    """Gives every object the first of its candidate places that keeps the gap; False where there is none: [B]."""
    y = drawn[..., 1]
    places = np.stack([(2 * drawn[..., 0] - 1) * (NARROW + (WIDE - NARROW) * y), NEAR + (FAR - NEAR) * y], axis=-1)
    reach = scenes.footprint + GAP / 2  # [B, M]
    present = scenes.present
    rows = np.arange(len(reach))
    good = np.ones(len(reach), dtype=bool)
    scenes.place[:, 0] = places[:, 0, 0]
    for k in range(1, reach.shape[1]):
        away = places[:, k, :, None] - scenes.place[:, None, :k]  # [B, C, k, 2]
        least = reach[:, k, None] + reach[:, :k]  # [B, k]
        free = (away[..., 0] ** 2 + away[..., 1] ** 2 >= (least * least)[:, None]).all(axis=2)
        scenes.place[:, k] = places[rows, k, free.argmax(axis=1)]
        good &= np.any(free, axis=1) | ~present[:, k]
    return good


def _framed(scenes: Scenes) -> NDArray[np.bool_]:
    """Whether spheres around the objects lie between the planes that bound `VIEW`: [B]."""
    right, up, forward = (axis[:, None] for axis in axes(scenes.camera))
    away = scenes.centre - scenes.camera[:, None]
    depth, radius = inner(away, forward), RADII[scenes.size] * REACH[scenes.shape]
    inside = ~scenes.present
    across, down = (
        np.abs(inner(away, axis)) + radius * np.sqrt(1 + tangent * tangent) <= tangent * depth
        for axis, tangent in zip((right, up), VIEW, strict=True)
    )
    return (inside | (across & down)).all(axis=1)


def visible(scenes: Scenes) -> Floats:
    """Share of each object's disc that no vertical cylinder around another object hides: [B, M]; 1 beyond ``count``."""
    right, up, _ = axes(scenes.camera)
    inside = RADII[scenes.size] * np.minimum(WIDTH, HEIGHT)[scenes.shape]  # [B, M] radius of the inscribed sphere
    offsets = PROBES[:, :1] * right[:, None] + PROBES[:, 1:] * up[:, None]  # [B, S, 3]
    rays = (scenes.centre - scenes.camera[:, None])[:, :, None] + inside[..., None, None] * offsets[:, None]
    hidden = np.zeros(rays.shape[:3], dtype=bool)  # [B, M, S]
    a = rays[..., 0] ** 2 + rays[..., 1] ** 2
    for k in range(scenes.shape.shape[1]):  # is cylinder k in front of the point at 1 along the ray?
        x, y = (scenes.camera[:, :2] - scenes.place[:, k]).T[:, :, None, None]
        b = rays[..., 0] * x + rays[..., 1] * y
        root = np.sqrt(np.maximum(b * b - a * (x * x + y * y - (scenes.footprint[:, k] ** 2)[:, None, None]), 0))
        height = scenes.camera[:, 2, None, None]
        top = (2 * scenes.half_height[:, k, None, None] - height) / rays[..., 2]  # rays point down
        start, end = np.maximum((-b - root) / a, top), np.minimum((-b + root) / a, -height / rays[..., 2])
        behind = (start < np.minimum(end, 1)) & (root > 0) & (k < scenes.count)[:, None, None]
        behind[:, k] = False
        hidden |= behind
    return np.where(scenes.present, 1 - hidden.sum(axis=2) / len(PROBES), 1.0)


def _nearest_first(scenes: Scenes) -> Scenes:
    """Sorts the objects by their distance."""
    _, _, forward = axes(scenes.camera)
    distance = inner(scenes.centre - scenes.camera[:, None], forward[:, None])
    distance = np.where(scenes.present, distance, np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    rows = np.arange(len(order))[:, None]
    scenes.distance = distance
    for name in ("shape", "colour", "material", "size", "place", "turn", "distance"):
        setattr(scenes, name, getattr(scenes, name)[rows, order])
    return scenes
