"""How light falls: one soft key light with shadows, a fill light, a sky, and what metal mirrors of it all."""

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import Array, Solid, dot, hit, normalised, normals
from ijepa.data.scenes.shadows import Ids, Shadows

PALETTE = np.array([
    (0.24, 0.24, 0.255), (0.72, 0.045, 0.035), (0.035, 0.11, 0.66), (0.03, 0.34, 0.06),
    (0.27, 0.11, 0.035), (0.36, 0.06, 0.56), (0.03, 0.56, 0.58), (0.86, 0.66, 0.03),
], dtype=np.float32).T  # fmt: skip
"""[3, 8]: linear red, green and blue of each of COLOURS."""

GROUND, POOL = 0.47, 110.0
GREY = np.array([[1.0], [0.99], [0.975]], dtype=np.float32)
KEY, FILL, SKY, BOUNCE = 0.95, 0.20, 0.42, 0.16
RUBBER_SHINE, METAL_SHINE, METAL_DIFFUSE = 0.16, 0.9, 0.12
FILL_FROM = np.array([0.70, -0.52, 0.49], dtype=np.float32)[:, None]
HORIZON, ZENITH, LAMP, PANEL = 0.36, 0.30, 2.4, 1.3
"""Of the sky: linear grey at the horizon and above, the key light, and strip lights that only metal shows."""


class Lighting:
    """The solids of a scene, what they are made of, and the key light.

    Args:
        solids: the objects.
        colours: [3, n] linear red, green and blue.
        metal: [n] whether an object is of metal.
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
        bare = ids == 0
        things = np.flatnonzero(~bare)
        if not len(things):
            return self._ground(points)
        ids = ids[things]
        at = points[:, things]
        facing = np.empty_like(at)
        for k, solid in enumerate(self.solids):
            index = np.flatnonzero(ids == k + 1)
            if len(index):
                facing[:, index] = normals(solid, at[:, index])
        lit, clear = self.shadows.reaching(at, facing, ids)
        albedo = self.colours[:, ids - 1]
        view = normalised(directions[:, things])
        colours = self._diffuse(facing, lit, clear, at[2]) * albedo
        turned = dot(facing, view)
        mirrored = view - 2 * turned * facing
        shine = np.maximum(dot(mirrored, self.light), 0)  # Phong's lobe: the mirror image of a round lamp
        metal = self.metal[ids - 1]
        colours += np.where(metal, 0, RUBBER_SHINE * _power(shine, 4) * lit)
        where = np.flatnonzero(metal)
        if len(where):
            image = self._mirror(at[:, where], mirrored[:, where], ids[where])
            edge = 0.5 * _power(1 + np.maximum(turned[where], -1), 2)
            tint = albedo[:, where] * (1 - edge) + 0.8 * edge
            spot = METAL_SHINE * _power(shine[where], 6) * lit[where]
            colours[:, where] = METAL_DIFFUSE * colours[:, where] + tint * image + spot
        ground = np.flatnonzero(bare)
        result = np.empty_like(points)
        result[:, ground] = self._ground(points[:, ground])
        result[:, things] = colours
        return result

    def _diffuse(self, facing: Array, lit: Array | float, clear: Array | float, height: Array) -> Array:
        """What a matt white surface sends back: [N]."""
        key = KEY * np.maximum(dot(facing, self.light), 0) * lit
        fill = FILL * np.maximum(dot(facing, FILL_FROM), 0)
        up = 0.5 + 0.5 * facing[2]
        near = height / (height + 0.15)  # the ground next to an object lies in its shade
        return key + (fill + SKY * up + BOUNCE * (1 - up) * near) * clear

    def _ground(self, points: Array) -> Array:
        """Linear colours [3, N] of the ground: brightest in the middle, fading to the sky's grey far away."""
        lit, clear = self.shadows.reaching(points)
        squared = points[0] * points[0] + points[1] * points[1]
        light = (KEY * float(self.light[2, 0]) * lit + (SKY + FILL * float(FILL_FROM[2, 0])) * clear) * GROUND
        far = squared / (squared + 900)
        return GREY * (light * (1 - far) / (1 + squared * (1 / POOL)) + HORIZON * far)

    def _mirror(self, points: Array, directions: Array, ids: Ids) -> Array:
        """What metal shows: linear colours [3, N] that arrive at ``points`` from unit ``directions`` [3, N]."""
        x, y, z = directions
        lamp = _step(dot(directions, self.light), 0.90, 0.95)
        strip = np.abs(1.1 * x + 0.5 * y - np.round(1.1 * x + 0.5 * y)) * 2  # 0 in the middle of a strip light
        panel = PANEL * _step(z, 0.35, 0.6) * (1 - _step(strip, 0.35, 0.75))
        sky = HORIZON + (ZENITH - HORIZON) * np.maximum(z, 0) + LAMP * lamp + panel
        result = np.empty_like(points)
        result[:] = sky
        down = np.flatnonzero(z < -0.01)
        distance = np.full_like(z, np.inf)
        distance[down] = points[2, down] / -z[down]
        below = points[:, down] + distance[down] * directions[:, down]
        result[:, down] = self._ground(below)
        for k, solid in enumerate(self.solids):
            away = solid.centre - points
            ahead = dot(away, directions)
            reach = solid.half_width + solid.half_height
            index = np.flatnonzero((ids != k + 1) & (ahead > 0) & (dot(away, away) - ahead * ahead < reach * reach))
            if not len(index):
                continue
            at = hit(solid, points[:, index], directions[:, index])
            closer = at < distance[index]
            index, at = index[closer], at[closer]
            distance[index] = at
            found = points[:, index] + at * directions[:, index]
            result[:, index] = self._diffuse(normals(solid, found), 1, 1, found[2]) * self.colours[:, k, None]
        return result


def _step(value: Array, start: float, end: float) -> Array:
    """Rises smoothly from 0 at ``start`` to 1 at ``end``."""
    share = np.clip((value - start) * (1 / (end - start)), 0, 1)
    return share * share * (3 - 2 * share)


def _power(value: Array, squarings: int) -> Array:
    """``value`` to the power 2**squarings."""
    for _ in range(squarings):
        value = value * value
    return value


def background() -> Array:
    """Linear colour [3, 1] of what lies beyond the ground: what the ground fades to."""
    return HORIZON * GREY
