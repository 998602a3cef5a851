"""The camera, the three solids, and ray-solid intersections with surface normals; the ground is the plane z = 0.

Vectors are float32 arrays [3, N]. Sums are written out, because IEEE arithmetic in a fixed order gives the same result
on every machine.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.scene import CUBE, SPHERE, TAN_HALF_FOV, Scenes, axes

Array = NDArray[np.floating[Any]]
Bounds = tuple[float, float, float, float]

BEVEL = 0.14
"""Fraction of half an edge over which the normals of cubes and cylinders rotate from one face to the next."""
FAR = 100.0
"""Depth of the sky and of anything farther away."""


class Solid(NamedTuple):
    """An object to render; plain floats, so that arrays stay float32."""

    shape: int
    centre: Array  # [3, 1]
    half_width: float
    half_height: float
    cosine: float
    sine: float


class Camera(NamedTuple):
    """A pinhole camera and its image size; pixels are square, and pixel (0, 0) covers [0, 1] x [0, 1]."""

    position: Array  # [3, 1]
    right: Array  # [3, 1]
    up: Array  # [3, 1]
    forward: Array  # [3, 1]
    focal: float  # in pixels
    height: int
    width: int

    def rays(self, x: Array, y: Array) -> Array:
        """Ray directions [3, N] through image points, in pixels; their component along the viewing axis is 1."""
        across, down = (x - self.width / 2) / self.focal, (y - self.height / 2) / self.focal
        return self.forward + across * self.right - down * self.up

    def bounds(self, solid: Solid) -> Bounds:
        """A box x0, y0, x1, y1, in pixels, that contains the projection of ``solid``."""
        extent = solid.half_width * (abs(solid.cosine) + abs(solid.sine)) if solid.shape == CUBE else solid.half_width
        corners = solid.centre + _CORNERS * np.array([[extent], [extent], [solid.half_height]], dtype=np.float32)
        offset = corners - self.position
        depth = dot(offset, self.forward)
        x = self.focal * dot(offset, self.right) / depth + self.width / 2
        y = self.height / 2 - self.focal * dot(offset, self.up) / depth
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())


_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32).T


def camera_of(scenes: Scenes, image: int, size: tuple[int, int]) -> Camera:
    """The camera of scene ``image`` of the batch, for images of ``size`` (height, width)."""
    height, width = size
    origin = scenes.camera[image]
    position, right, up, forward = (vector[:, None].astype(np.float32) for vector in (origin, *axes(origin)))
    focal = min(width / (2 * TAN_HALF_FOV[0]), height / (2 * TAN_HALF_FOV[1]))
    return Camera(position, right, up, forward, focal, height, width)


def solids_of(scenes: Scenes, image: int) -> list[Solid]:
    """The objects of scene ``image`` of the batch, in its order."""
    return [
        Solid(
            shape=int(scenes.shape[image, k]),
            centre=scenes.centre[image, k].astype(np.float32)[:, None],
            half_width=float(scenes.half_width[image, k]),
            half_height=float(scenes.half_height[image, k]),
            cosine=float(scenes.rotation[image, k, 0]),
            sine=float(scenes.rotation[image, k, 1]),
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
    """``vectors`` [3, N] scaled to length 1."""
    return vectors / np.sqrt(dot(vectors, vectors))


def to_local(solid: Solid, vectors: Array) -> Array:
    """``vectors`` [3, N] rotated into the axes of ``solid``."""
    x, y, z = vectors
    return np.stack([solid.cosine * x + solid.sine * y, solid.cosine * y - solid.sine * x, z])


def hit(solid: Solid, origins: Array, directions: Array) -> Array:
    """Ray parameters [N] at which rays enter ``solid``, in units of ``directions``; inf for rays that miss it.

    Args:
        solid: the object; no ray may start inside it.
        origins: [3, N] or [3, 1].
        directions: [3, N], of any length.
    """
    offset: Array = origins - solid.centre
    if solid.shape == SPHERE:
        near, far = _round_interval(offset, directions, solid.half_width, 3)
    else:
        if solid.shape == CUBE:
            offset, directions = to_local(solid, offset), to_local(solid, directions)
            near, far = _slab_interval(offset[0], directions[0], solid.half_width)
            near, far = _overlap(near, far, *_slab_interval(offset[1], directions[1], solid.half_width))
        else:
            near, far = _round_interval(offset, directions, solid.half_width, 2)
        near, far = _overlap(near, far, *_slab_interval(offset[2], directions[2], solid.half_height))
    near[~((near < far) & (near > 0))] = np.inf
    return near


def _round_interval(offset: Array, directions: Array, radius: float, dimensions: int) -> tuple[Array, Array]:
    """Ray parameters on entering and leaving a sphere (3 dimensions) or an infinite upright cylinder (2)."""
    p, d = offset[:dimensions], directions[:dimensions]
    a, b, c = d * d, p * d, p * p
    a, b, c = (part[0] + part[1] + part[2] if dimensions == 3 else part[0] + part[1] for part in (a, b, c))
    a = np.maximum(a, np.float32(1e-12))
    middle = b / -a
    root = np.sqrt(np.maximum((radius * radius - c + b * b / a) / a, 0))
    return middle - root, middle + root


def _slab_interval(offset: Array, direction: Array, half: float) -> tuple[Array, Array]:
    """Ray parameters on entering and leaving the slab between the planes at -half and half."""
    inverse = 1 / np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)
    middle, reach = offset * -inverse, half * np.abs(inverse)
    return middle - reach, middle + reach


def _overlap(near: Array, far: Array, other_near: Array, other_far: Array) -> tuple[Array, Array]:
    return np.maximum(near, other_near), np.minimum(far, other_far)


def normals(solid: Solid, points: Array) -> Array:
    """Unit normals [3, N] at ``points`` [3, N] on the surface of ``solid``, as if its edges were slightly bevelled."""
    offset = points - solid.centre
    if solid.shape == SPHERE:
        return offset / solid.half_width
    if solid.shape == CUBE:
        x, y, z = to_local(solid, offset)
        x, y = _bevel_weight(x / solid.half_width), _bevel_weight(y / solid.half_width)
        z = _bevel_weight(z / solid.half_height)
        return normalised(np.stack([solid.cosine * x - solid.sine * y, solid.cosine * y + solid.sine * x, z]))
    x, y, z = offset
    radius = np.sqrt(x * x + y * y)
    scale = _bevel_weight(radius / solid.half_width) / np.maximum(radius, np.float32(1e-6))
    return normalised(np.stack([scale * x, scale * y, _bevel_weight(z / solid.half_height)]))


def _bevel_weight(coordinate: Array) -> Array:
    """Signed weight of a face's normal, given the coordinate towards the face: 0 in the middle, `BEVEL` on the face."""
    weight = np.maximum(np.abs(coordinate) - (1 - BEVEL), np.float32(1e-6))
    return np.copysign(weight, coordinate)
