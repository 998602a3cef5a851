"""Shading: a soft key light with shadows, a fill light, the sky, and reflections in metal."""

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import Array, Solid, dot, hit, normalised, normals
from ijepa.data.scenes.shadows import Ids, Shadows

PALETTE = np.array([
    (0.24, 0.24, 0.255), (0.72, 0.045, 0.035), (0.035, 0.11, 0.66), (0.03, 0.34, 0.06),
    (0.27, 0.11, 0.035), (0.36, 0.06, 0.56), (0.03, 0.56, 0.58), (0.86, 0.66, 0.03),
], dtype=np.float32).T  # fmt: skip
"""[3, 8]: linear RGB of each of COLOURS."""

GROUND, POOL = 0.47, 110.0
"""The ground: albedo, and the squared distance from the origin at which its brightness has halved."""
GREY = np.array([[1.0], [0.99], [0.975]], dtype=np.float32)
KEY, FILL, SKY, BOUNCE = 0.95, 0.20, 0.42, 0.16
"""Intensity of the key light, the fill light, the sky, and light that the ground reflects."""
RUBBER_SHINE, METAL_SHINE, METAL_DIFFUSE = 0.16, 0.9, 0.12
FILL_FROM = np.array([0.70, -0.52, 0.49], dtype=np.float32)[:, None]
HORIZON, ZENITH, LAMP, PANEL = 0.36, 0.30, 2.4, 1.3
"""The sky: linear grey at horizon and zenith, the key light's lamp, and strip lights that only metal reflects."""


class Lighting:
    """The solids of a scene, their colours and materials, and the key light.

    Args:
        solids: the objects.
        colours: [3, n] linear RGB.
        metal: [n] whether an object is metal; the others are rubber.
        light: [3, 1] unit vector towards the key light.
    """

    def __init__(self, solids: list[Solid], colours: Array, metal: NDArray[np.bool_], light: Array) -> None:
        self.solids = solids
        self.colours = colours
        self.metal = metal
        self.light = light
        self.shadows = Shadows(solids, light)

    def shade(self, points: Array, ids: Ids, directions: Array) -> Array:
        """Linear colours [3, N] of ``points`` [3, N] on objects ``ids`` [N] (0: ground), seen along ``directions``."""
        on_ground = ids == 0
        object_points = np.flatnonzero(~on_ground)
        if not len(object_points):
            return self._shade_ground(points)
        ids = ids[object_points]
        positions = points[:, object_points]
        unit_normals = np.empty_like(positions)
        for number, solid in enumerate(self.solids):
            index = np.flatnonzero(ids == number + 1)
            if len(index):
                unit_normals[:, index] = normals(solid, positions[:, index])
        direct, ambient = self.shadows.visibility(positions, unit_normals, ids)
        albedo = self.colours[:, ids - 1]
        view = normalised(directions[:, object_points])
        colours = self._shade_diffuse(unit_normals, direct, ambient, positions[2]) * albedo
        cosine = dot(unit_normals, view)
        reflected = view - 2 * cosine * unit_normals
        shine = np.maximum(dot(reflected, self.light), 0)  # Phong's lobe: the mirror image of a round lamp
        metal = self.metal[ids - 1]
        colours += np.where(metal, 0, RUBBER_SHINE * _power(shine, 4) * direct)
        metal_points = np.flatnonzero(metal)
        if len(metal_points):
            mirror_image = self._shade_mirror(positions[:, metal_points], reflected[:, metal_points], ids[metal_points])
            fresnel = 0.5 * _power(1 + np.maximum(cosine[metal_points], -1), 2)
            tint = albedo[:, metal_points] * (1 - fresnel) + 0.8 * fresnel
            highlight = METAL_SHINE * _power(shine[metal_points], 6) * direct[metal_points]
            colours[:, metal_points] = METAL_DIFFUSE * colours[:, metal_points] + tint * mirror_image + highlight
        ground = np.flatnonzero(on_ground)
        result = np.empty_like(points)
        result[:, ground] = self._shade_ground(points[:, ground])
        result[:, object_points] = colours
        return result

    def _shade_diffuse(
        self, unit_normals: Array, direct: Array | float, ambient: Array | float, height: Array
    ) -> Array:
        """Light that a matt white surface reflects: [N]."""
        key = KEY * np.maximum(dot(unit_normals, self.light), 0) * direct
        fill = FILL * np.maximum(dot(unit_normals, FILL_FROM), 0)
        up = 0.5 + 0.5 * unit_normals[2]
        near = height / (height + 0.15)  # the ground next to an object is in its shadow
        return key + (fill + SKY * up + BOUNCE * (1 - up) * near) * ambient

    def _shade_ground(self, points: Array) -> Array:
        """Linear colours [3, N] of the ground, which is brightest in the middle and fades to the horizon's grey."""
        direct, ambient = self.shadows.visibility(points)
        squared = points[0] * points[0] + points[1] * points[1]
        light = (KEY * float(self.light[2, 0]) * direct + (SKY + FILL * float(FILL_FROM[2, 0])) * ambient) * GROUND
        far = squared / (squared + 900)
        return GREY * (light * (1 - far) / (1 + squared * (1 / POOL)) + HORIZON * far)

    def _shade_mirror(self, points: Array, directions: Array, ids: Ids) -> Array:
        """The reflection in metal: linear colours [3, N] seen from ``points`` [3, N] in unit ``directions`` [3, N]."""
        x, y, z = directions
        lamp = _smoothstep(dot(directions, self.light), 0.90, 0.95)
        strip = np.abs(1.1 * x + 0.5 * y - np.round(1.1 * x + 0.5 * y)) * 2  # 0 in the middle of a strip light
        panel = PANEL * _smoothstep(z, 0.35, 0.6) * (1 - _smoothstep(strip, 0.35, 0.75))
        sky = HORIZON + (ZENITH - HORIZON) * np.maximum(z, 0) + LAMP * lamp + panel
        result = np.empty_like(points)
        result[:] = sky
        down = np.flatnonzero(z < -0.01)
        distance = np.full_like(z, np.inf)
        distance[down] = points[2, down] / -z[down]
        below = points[:, down] + distance[down] * directions[:, down]
        result[:, down] = self._shade_ground(below)
        for k, solid in enumerate(self.solids):
            offset = solid.centre - points
            ahead = dot(offset, directions)
            reach = solid.half_width + solid.half_height
            index = np.flatnonzero((ids != k + 1) & (ahead > 0) & (dot(offset, offset) - ahead * ahead < reach * reach))
            if not len(index):
                continue
            entry = hit(solid, points[:, index], directions[:, index])
            closer = entry < distance[index]
            index, entry = index[closer], entry[closer]
            distance[index] = entry
            hit_points = points[:, index] + entry * directions[:, index]
            result[:, index] = (
                self._shade_diffuse(normals(solid, hit_points), 1, 1, hit_points[2]) * self.colours[:, k, None]
            )
        return result


def _smoothstep(value: Array, start: float, end: float) -> Array:
    """Rises smoothly from 0 at ``start`` to 1 at ``end``."""
    fraction = np.clip((value - start) * (1 / (end - start)), 0, 1)
    return fraction * fraction * (3 - 2 * fraction)


def _power(value: Array, squarings: int) -> Array:
    """``value`` to the power 2**squarings."""
    for _ in range(squarings):
        value = value * value
    return value


def background() -> Array:
    """Linear colour [3, 1] of the sky at the horizon, which the ground fades to."""
    return HORIZON * GREY
