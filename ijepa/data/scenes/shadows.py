"""Visibility of the key light and of the sky: soft shadows and ambient occlusion.

A shadow is the solid's outline as seen from the light (a disc, a hexagon, or a rectangle between two half ellipses);
its edge, the penumbra, widens with the distance from the solid. Solids are convex and do not touch, so a solid shades
itself only where it faces away from the light. Everything is in closed form rather than sampled, so there is no noise.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import Array, Solid, dot
from ijepa.data.scenes.scene import CUBE, SPHERE

Ids = NDArray[np.uint8]

PENUMBRA, MIN_PENUMBRA = 0.17, 0.025
"""Half the width of a penumbra: per unit of distance from the solid that casts it, and the minimum."""
MAX_OCCLUSION = 0.9
"""Fraction of the sky's light that is lost where a solid covers the whole sky."""
CHUNK = 8192
"""Points per chunk; few enough for the processor's cache."""


class Shadows:
    """The solids of a scene, projected along the key light.

    Args:
        solids: the objects.
        light: [3, 1] unit vector towards the key light.
    """

    def __init__(self, solids: list[Solid], light: Array) -> None:
        x, y, z = (float(part) for part in light[:, 0])
        level = math.sqrt(x * x + y * y)
        across = np.array([[-y / level], [x / level], [0]], dtype=np.float32)
        upward = np.array([[-x * z / level], [-y * z / level], [level]], dtype=np.float32)
        self.frame = across, upward, light
        """Unit vectors: horizontal and across the light; upward and across the light; towards the light."""
        rounds = [k for k, solid in enumerate(solids) if solid.shape != CUBE]
        cubes = [k for k, solid in enumerate(solids) if solid.shape == CUBE]
        self.round_count = len(rounds)
        self.ids = np.array(rounds + cubes, dtype=np.uint8)[:, None] + np.uint8(1)
        ordered = [solids[k] for k in rounds + cubes]
        centres = np.concatenate([solid.centre for solid in ordered], axis=1)
        self.centres = [dot(centres, axis)[:, None] for axis in self.frame]
        self.heights = _column([solid.half_height for solid in ordered])
        self.sizes = _column([solid.half_width * solid.half_height for solid in ordered])
        # Outlines of spheres and cylinders: radius, half the length of the straight sides, flattening of the ends.
        self.radius = _column([solid.half_width for solid in ordered[: self.round_count]])
        is_sphere = [solid.shape == SPHERE for solid in ordered[: self.round_count]]
        straight = zip(ordered, is_sphere, strict=False)
        self.straight = _column([0 if ball else solid.half_height * level for solid, ball in straight])
        self.flat = _column([1 if ball else 1 / z for ball in is_sphere])
        strips = [_cube_strips(solid, across, upward) for solid in ordered[self.round_count :]]
        self.strips = np.array(strips, dtype=np.float32).reshape(-1, 3, 3).transpose(1, 2, 0)[..., None]

    def visibility(
        self, points: Array, unit_normals: Array | None = None, ids: Ids | None = None
    ) -> tuple[Array, Array]:
        """The fractions, in 0..1, of the key light and of the sky's light that reach points: two arrays [N].

        Args:
            points: [3, N].
            unit_normals: surface normals [3, N]; None: the points are on the ground.
            ids: [N] the objects that the points are on; None: the points are on the ground.
        """
        direct, ambient = np.empty(points.shape[1], dtype=np.float32), np.empty(points.shape[1], dtype=np.float32)
        for start in range(0, len(direct), CHUNK):
            chunk = slice(start, start + CHUNK)
            surface = (None, None) if unit_normals is None or ids is None else (unit_normals[:, chunk], ids[chunk])
            direct[chunk], ambient[chunk] = self._chunk_visibility(points[:, chunk], *surface)
        return direct, ambient

    def _chunk_visibility(self, points: Array, unit_normals: Array | None, ids: Ids | None) -> tuple[Array, Array]:
        u, v, w = (centre - dot(points, axis) for centre, axis in zip(self.centres, self.frame, strict=True))  # [n, N]
        penumbra = w - 0.7 * self.heights
        penumbra *= PENUMBRA
        np.maximum(penumbra, MIN_PENUMBRA, out=penumbra)
        direct = self._outline_distance(u, v)
        direct /= penumbra
        np.clip(direct, -1, 1, out=direct)
        squared = direct * direct
        direct *= 0.75 - 0.25 * squared
        direct += 0.5
        np.multiply(u, u, out=squared)
        squared += v * v
        squared += w * w
        ambient = np.sqrt(squared)
        ambient *= squared
        np.divide(self.sizes, ambient, out=ambient)
        if unit_normals is None or ids is None:
            ambient *= self.heights
        else:
            x, y, z = (dot(unit_normals, axis) for axis in self.frame)
            ambient *= np.maximum(x * u + y * v + z * w, 0)
            is_own_solid = ids == self.ids
            direct[is_own_solid | (w < 0)] = 1
            ambient[is_own_solid] = 0
        np.minimum(ambient, 1, out=ambient)
        ambient *= -MAX_OCCLUSION
        ambient += 1
        return np.multiply.reduce(direct, axis=0), np.multiply.reduce(ambient, axis=0)

    def _outline_distance(self, u: Array, v: Array) -> Array:
        """Distances [n, N] from the outlines at offsets (``u``, ``v``) from the centres; negative inside."""
        result = np.empty_like(u)
        if self.round_count:
            across = u[: self.round_count]
            upward = np.abs(v[: self.round_count])
            upward -= self.straight
            np.maximum(upward, 0, out=upward)
            upward *= self.flat
            across = across * across
            radius = np.sqrt(across + upward * upward)
            # First-order distance from an ellipse; it is exact at the sides, where the outline is straight.
            upward *= self.flat
            slope = np.sqrt(across + upward * upward)
            np.maximum(slope, np.float32(1e-6), out=slope)
            np.multiply(radius - self.radius, radius / slope, out=result[: self.round_count])
        if self.round_count < len(u):
            cubes = result[self.round_count :]
            cubes[:] = -np.inf
            for a, b, half in self.strips:
                distance = a * u[self.round_count :]
                distance += b * v[self.round_count :]
                np.abs(distance, out=distance)
                distance -= half
                np.maximum(cubes, distance, out=cubes)
        return result


def _column(values: list[float]) -> Array:
    return np.array(values, dtype=np.float32)[:, None]


def _cube_strips(solid: Solid, across: Array, upward: Array) -> list[tuple[float, float, float]]:
    """A cube's outline as seen from the light, a hexagon: the intersection of three strips |a u + b v| <= half.

    Each strip, (a, b, half), lies between two parallel edges; its width is the extent of the other two axes across it.
    """
    level = float(upward[2, 0])
    sides = (solid.cosine, solid.sine), (-solid.sine, solid.cosine)
    (a, b), (c, d) = ([x * float(axis[0, 0]) + y * float(axis[1, 0]) for axis in (across, upward)] for x, y in sides)
    strips = [(1.0, 0.0, solid.half_width * (abs(a) + abs(c)))]
    for (p, q), (r, s) in (((a, b), (c, d)), ((c, d), (a, b))):
        length = math.sqrt(p * p + q * q)
        half = solid.half_width * abs(p * s - q * r) + solid.half_height * abs(p) * level
        strips.append((-q / length, p / length, half / length))
    return strips
