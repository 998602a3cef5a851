"""How much light from the key light and from the sky gets past the solids.

A shadow is the solid's outline as the light sees it (a disc, a hexagon, a rectangle between two half ellipses), with
an edge that gets softer with the distance from what casts it. Solids are convex and apart: none shades itself other
than by facing away from the light. All is in closed form, without sampling: no noise.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import Array, Solid, dot
from ijepa.data.scenes.scene import CUBE, SPHERE

Ids = NDArray[np.uint8]

SOFTNESS, SHARPEST = 0.17, 0.025
"""Half the width of a shadow's edge: per distance to what casts it, and at least."""
CONTACT = 0.9
"""How dark the sky's light gets where a solid fills the view."""
AT_ONCE = 8192
"""Points at a time: what is computed for them stays in the processor's cache."""


class Shadows:
    """The solids of a scene as the key light sees them.

    Args:
        solids: the objects.
        light: [3, 1] unit vector towards the key light.
    """

    def __init__(self, solids: list[Solid], light: Array) -> None:
        x, y, z = (float(part) for part in light[:, 0])
        level = math.sqrt(x * x + y * y)
        across = np.array([[-y / level], [x / level], [0]], dtype=np.float32)
        over = np.array([[-x * z / level], [-y * z / level], [level]], dtype=np.float32)
        self.frame = across, over, light
        """Unit vectors: level, across the light; up, across the light; towards the light."""
        rounds = [k for k, solid in enumerate(solids) if solid.shape != CUBE]
        cubes = [k for k, solid in enumerate(solids) if solid.shape == CUBE]
        self.rounds = len(rounds)
        self.numbers = np.array(rounds + cubes, dtype=np.uint8)[:, None] + np.uint8(1)
        ordered = [solids[k] for k in rounds + cubes]
        centres = np.concatenate([solid.centre for solid in ordered], axis=1)
        self.centres = [dot(centres, axis)[:, None] for axis in self.frame]
        self.heights = _column([solid.half_height for solid in ordered])
        self.sizes = _column([solid.half_width * solid.half_height for solid in ordered])
        # Of spheres and cylinders: radius, half the length of the straight sides, and how flat the ends are.
        self.radius = _column([solid.half_width for solid in ordered[: self.rounds]])
        balls = [solid.shape == SPHERE for solid in ordered[: self.rounds]]
        straight = zip(ordered, balls, strict=False)
        self.straight = _column([0 if ball else solid.half_height * level for solid, ball in straight])
        self.flat = _column([1 if ball else 1 / z for ball in balls])
        strips = [_strips(solid, across, over) for solid in ordered[self.rounds :]]
        self.strips = np.array(strips, dtype=np.float32).reshape(-1, 3, 3).transpose(1, 2, 0)[..., None]

    def reaching(self, points: Array, facing: Array | None = None, ids: Ids | None = None) -> tuple[Array, Array]:
        """Shares in 0..1 of the key light and of the sky's light that reach points past the other solids: two of [N].

        Args:
            points: [3, N] on the ground, unless there are ``facing`` and ``ids``.
            facing: normals [3, N].
            ids: [N] the objects that the points are on.
        """
        lit, clear = np.empty(points.shape[1], dtype=np.float32), np.empty(points.shape[1], dtype=np.float32)
        for start in range(0, len(lit), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            on = (None, None) if facing is None or ids is None else (facing[:, part], ids[part])
            lit[part], clear[part] = self._reaching(points[:, part], *on)
        return lit, clear

    def _reaching(self, points: Array, facing: Array | None, ids: Ids | None) -> tuple[Array, Array]:
        u, v, w = (centre - dot(points, axis) for centre, axis in zip(self.centres, self.frame, strict=True))  # [n, N]
        softness = w - 0.7 * self.heights
        softness *= SOFTNESS
        np.maximum(softness, SHARPEST, out=softness)
        share = self._outline(u, v)
        share /= softness
        np.clip(share, -1, 1, out=share)
        squared = share * share
        share *= 0.75 - 0.25 * squared
        share += 0.5
        np.multiply(u, u, out=squared)
        squared += v * v
        squared += w * w
        blocked = np.sqrt(squared)
        blocked *= squared
        np.divide(self.sizes, blocked, out=blocked)
        if facing is None or ids is None:
            blocked *= self.heights
        else:
            x, y, z = (dot(facing, axis) for axis in self.frame)
            blocked *= np.maximum(x * u + y * v + z * w, 0)
            own = ids == self.numbers
            share[own | (w < 0)] = 1
            blocked[own] = 0
        np.minimum(blocked, 1, out=blocked)
        blocked *= -CONTACT
        blocked += 1
        return np.multiply.reduce(share, axis=0), np.multiply.reduce(blocked, axis=0)

    def _outline(self, u: Array, v: Array) -> Array:
        """Distance to the outlines, of points (``u``, ``v``) away from the centres: [n, N], negative inside."""
        result = np.empty_like(u)
        if self.rounds:
            side = u[: self.rounds]
            up = np.abs(v[: self.rounds])
            up -= self.straight
            np.maximum(up, 0, out=up)
            up *= self.flat
            side = side * side
            radius = np.sqrt(side + up * up)
            # Distance from an ellipse, to first order: exact at the sides, where the outline is straight.
            up *= self.flat
            slope = np.sqrt(side + up * up)
            np.maximum(slope, np.float32(1e-6), out=slope)
            np.multiply(radius - self.radius, radius / slope, out=result[: self.rounds])
        if self.rounds < len(u):
            cubes = result[self.rounds :]
            cubes[:] = -np.inf
            for a, b, half in self.strips:
                distance = a * u[self.rounds :]
                distance += b * v[self.rounds :]
                np.abs(distance, out=distance)
                distance -= half
                np.maximum(cubes, distance, out=cubes)
        return result


def _column(values: list[float]) -> Array:
    return np.array(values, dtype=np.float32)[:, None]


def _strips(solid: Solid, across: Array, over: Array) -> list[tuple[float, float, float]]:
    """The hexagon that a cube shows to the light: three strips |a u + b v| <= half, each (a, b, half).

    A strip lies between two edges along the same axis; it is as wide as the other two axes are long across it.
    """
    level = float(over[2, 0])
    sides = (solid.cosine, solid.sine), (-solid.sine, solid.cosine)
    (a, b), (c, d) = ([x * float(axis[0, 0]) + y * float(axis[1, 0]) for axis in (across, over)] for x, y in sides)
    strips = [(1.0, 0.0, solid.half_width * (abs(a) + abs(c)))]
    for (p, q), (r, s) in (((a, b), (c, d)), ((c, d), (a, b))):
        length = math.sqrt(p * p + q * q)
        half = solid.half_width * abs(p * s - q * r) + solid.half_height * abs(p) * level
        strips.append((-q / length, p / length, half / length))
    return strips
