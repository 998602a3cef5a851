"""Rays against the three solids: where they hit, and with which normal; the ground is the plane z = 0.

Vectors are float32 arrays [3, N]. Sums are written out: IEEE arithmetic in a fixed order is the same on every machine.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.scene import CUBE, SPHERE, VIEW, Scenes, axes

Array = NDArray[np.floating[Any]]
Bounds = tuple[float, float, float, float]

BEVEL = 0.14
"""Share of half an edge along which the normals of cubes and cylinders turn from one face to the next."""
FAR = 100.0
"""Depth of what is farther away, the sky included."""


class Solid(NamedTuple):
    """An object as the renderer sees it; plain floats, so that arrays stay float32."""

    shape: int
    centre: Array  # [3, 1]
    half_width: float
    half_height: float
    cosine: float
    sine: float


class View(NamedTuple):
    """A camera and its picture: a pinhole, square pixels, pixel (0, 0) covers [0, 1] x [0, 1]."""

    position: Array  # [3, 1]
    right: Array  # [3, 1]
    up: Array  # [3, 1]
    forward: Array  # [3, 1]
    focal: float  # in pixels
    height: int
    width: int

    def rays(self, x: Array, y: Array) -> Array:
        """Directions [3, N] through points of the picture, in pixels; of length 1 along the viewing axis."""
        across, down = (x - self.width / 2) / self.focal, (y - self.height / 2) / self.focal
        return self.forward + across * self.right - down * self.up

    def bounds(self, solid: Solid) -> Bounds:
        """x0, y0, x1, y1, in pixels, of a rectangle around the picture of ``solid``."""
        wide = solid.half_width * (abs(solid.cosine) + abs(solid.sine)) if solid.shape == CUBE else solid.half_width
        corners = solid.centre + _CORNERS * np.array([[wide], [wide], [solid.half_height]], dtype=np.float32)
        away = corners - self.position
        depth = dot(away, self.forward)
        x = self.focal * dot(away, self.right) / depth + self.width / 2
        y = self.height / 2 - self.focal * dot(away, self.up) / depth
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())


_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32).T


def view_of(scenes: Scenes, image: int, size: tuple[int, int]) -> View:
    """The view of one scene of the batch in a picture of ``size`` (height, width)."""
    height, width = size
    camera = scenes.camera[image]
    position, right, up, forward = (part[:, None].astype(np.float32) for part in (camera, *axes(camera)))
    focal = min(width / (2 * VIEW[0]), height / (2 * VIEW[1]))
    return View(position, right, up, forward, focal, height, width)


def solids_of(scenes: Scenes, image: int) -> list[Solid]:
    """The objects of one scene of the batch, in its order."""
    return [
        Solid(
            shape=int(scenes.shape[image, k]),
            centre=scenes.centre[image, k].astype(np.float32)[:, None],
            half_width=float(scenes.half_width[image, k]),
            half_height=float(scenes.half_height[image, k]),
            cosine=float(scenes.turn[image, k, 0]),
            sine=float(scenes.turn[image, k, 1]),
        )
        for k in range(scenes.count[image])
    ]


def dot(a: Array, b: Array) -> Array:
    """Inner products of [3, N] and [3, N] (or [3, 1]): [N]."""
    product = a * b
    total: Array = product[0] + product[1]
    total += product[2]
    return total


def normalised(vectors: Array) -> Array:
    """``vectors`` [3, N] at length 1."""
    return vectors / np.sqrt(dot(vectors, vectors))


def to_local(solid: Solid, vectors: Array) -> Array:
    """``vectors`` [3, N], turned so that the sides of ``solid`` lie along the axes."""
    x, y, z = vectors
    return np.stack([solid.cosine * x + solid.sine * y, solid.cosine * y - solid.sine * x, z])


def hit(solid: Solid, origins: Array, directions: Array) -> Array:
    """Where rays enter ``solid``, in lengths of ``directions`` [3, N]; inf for those which do not: [N].

    Args:
        solid: no ray starts inside it.
        origins: [3, N] or [3, 1].
        directions: [3, N], of any length.
    """
    away: Array = origins - solid.centre
    if solid.shape == SPHERE:
        near, far = _within_round(away, directions, solid.half_width, 3)
    else:
        if solid.shape == CUBE:
            away, directions = to_local(solid, away), to_local(solid, directions)
            near, far = _between(away[0], directions[0], solid.half_width)
            near, far = _both(near, far, *_between(away[1], directions[1], solid.half_width))
        else:
            near, far = _within_round(away, directions, solid.half_width, 2)
        near, far = _both(near, far, *_between(away[2], directions[2], solid.half_height))
    near[~((near < far) & (near > 0))] = np.inf
    return near


def _within_round(away: Array, directions: Array, radius: float, dimensions: int) -> tuple[Array, Array]:
    """Where rays enter and leave a sphere (3 dimensions) or an upright cylinder without ends (2)."""
    p, d = away[:dimensions], directions[:dimensions]
    a, b, c = d * d, p * d, p * p
    a, b, c = (part[0] + part[1] + part[2] if dimensions == 3 else part[0] + part[1] for part in (a, b, c))
    a = np.maximum(a, np.float32(1e-12))
    middle = b / -a
    root = np.sqrt(np.maximum((radius * radius - c + b * b / a) / a, 0))
    return middle - root, middle + root


def _between(away: Array, direction: Array, half: float) -> tuple[Array, Array]:
    """Where rays enter and leave the space between two planes at -half and half."""
    inverse = 1 / np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)
    middle, reach = away * -inverse, half * np.abs(inverse)
    return middle - reach, middle + reach


def _both(near: Array, far: Array, other_near: Array, other_far: Array) -> tuple[Array, Array]:
    return np.maximum(near, other_near), np.minimum(far, other_far)


def normals(solid: Solid, points: Array) -> Array:
    """Unit normals [3, N] at ``points`` [3, N] on ``solid``, as if its edges were slightly bevelled."""
    away = points - solid.centre
    if solid.shape == SPHERE:
        return away / solid.half_width
    if solid.shape == CUBE:
        x, y, z = to_local(solid, away)
        x, y, z = _bevelled(x / solid.half_width), _bevelled(y / solid.half_width), _bevelled(z / solid.half_height)
        return normalised(np.stack([solid.cosine * x - solid.sine * y, solid.cosine * y + solid.sine * x, z]))
    x, y, z = away
    radius = np.sqrt(x * x + y * y)
    scale = _bevelled(radius / solid.half_width) / np.maximum(radius, np.float32(1e-6))
    return normalised(np.stack([scale * x, scale * y, _bevelled(z / solid.half_height)]))


def _bevelled(share: Array) -> Array:
    """How much a face counts for the normal, from where a point lies: 0 in the middle, 1 on that face."""
    weight = np.maximum(np.abs(share) - (1 - BEVEL), np.float32(1e-6))
    return np.copysign(weight, share)
