"""The description of scenes: settings, objects, camera and light, in world units with z up and the ground at z = 0."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ijepa.util.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHAPES = ("sphere", "cube", "cylinder")
COLOURS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
SPHERE, CUBE, CYLINDER = range(3)
RUBBER, METAL = range(2)

RADII = np.array([0.44, 0.76])
WIDTHS = np.array([1.0, 0.8, 0.88])
HEIGHTS = np.array([1.0, 0.8, 0.85])
FOOTPRINTS = np.array([1.0, 0.8 * 1.4143, 0.88])
BOUNDING_RADII = np.array([1.0, 0.8 * 1.7321, 1.2235])
"""For each of SHAPES, relative to the RADII of its size: half the width, half the height, and the radii (rounded up) of
the bounding vertical cylinder and of the bounding sphere."""

MAX_OBJECTS = 10
MIN_SIDE = 8
LOOK_AT = np.array([0.0, -0.05, 0.25])
"""The point that the camera looks at."""
TAN_HALF_FOV = 0.43, 0.36
"""Tangents of half the horizontal and vertical field of view that contains all objects; images show at least this."""


@dataclass(frozen=True)
class Settings:
    """The settings of a data set of scenes.

    Args:
        image_size: height and width in pixels, in any proportion.
        min_objects: minimum number of objects in a scene.
        max_objects: maximum number of objects in a scene, up to `MAX_OBJECTS`.

    Raises:
        ConfigError: if a value is out of range.
    """

    image_size: tuple[int, int] = (64, 64)
    min_objects: int = 3
    max_objects: int = 10

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < MIN_SIDE:
            raise ConfigError("image_size", self.image_size, f"height and width in pixels, each at least {MIN_SIDE}")
        if not 1 <= self.max_objects <= MAX_OBJECTS:
            raise ConfigError("max_objects", self.max_objects, f"must be in 1..{MAX_OBJECTS}")
        if not 1 <= self.min_objects <= self.max_objects:
            raise ConfigError("min_objects", self.min_objects, f"must be in 1..max_objects, here {self.max_objects}")


@dataclass
class Scenes:
    """B scenes of up to M objects, nearest first; entries beyond ``count`` are arbitrary (``distance`` is inf).

    Distances are depths, from the camera to an object's centre along the camera's viewing axis, as in CLEVR.
    """

    count: Ints  # [B]
    shape: Ints  # [B, M] index into SHAPES
    colour: Ints  # [B, M] index into COLOURS
    material: Ints  # [B, M] index into MATERIALS
    size: Ints  # [B, M] index into SIZES
    position: Floats  # [B, M, 2] x and y on the ground
    rotation: Floats  # [B, M, 2] cosine and sine of the rotation about the vertical axis
    distance: Floats  # [B, M]
    camera: Floats  # [B, 3] position
    light: Floats  # [B, 3] unit vector towards the key light

    def rows(self, indices: NDArray[Any]) -> "Scenes":
        """The scenes at ``indices``."""
        arrays: dict[str, Any] = {part.name: getattr(self, part.name)[indices] for part in fields(self)}
        return Scenes(**arrays)

    @property
    def present(self) -> NDArray[np.bool_]:
        """[B, M]: which entries are objects."""
        return np.arange(self.shape.shape[1]) < self.count[:, None]

    @property
    def half_width(self) -> Floats:
        """[B, M]: radius of spheres and cylinders, half the edge of cubes."""
        return RADII[self.size] * WIDTHS[self.shape]

    @property
    def half_height(self) -> Floats:
        """[B, M]: half the height, which is also the height of the centre: objects stand on the ground."""
        return RADII[self.size] * HEIGHTS[self.shape]

    @property
    def footprint(self) -> Floats:
        """[B, M]: radius of the bounding vertical cylinder."""
        return RADII[self.size] * FOOTPRINTS[self.shape]

    @property
    def centre(self) -> Floats:
        """[B, M, 3]: the objects' centres."""
        return np.concatenate([self.position, self.half_height[..., None]], axis=-1)


def axes(camera: Floats) -> tuple[Floats, Floats, Floats]:
    """The axes (right, up, forward; unit vectors [..., 3]) of level cameras at ``camera`` [..., 3] facing `LOOK_AT`."""
    forward = unit(LOOK_AT - camera)
    x, y, z = forward[..., 0], forward[..., 1], forward[..., 2]
    right = unit(np.stack([y, -x, np.zeros_like(x)], axis=-1))
    up = np.stack([right[..., 1] * z, -right[..., 0] * z, right[..., 0] * y - right[..., 1] * x], axis=-1)
    return right, up, forward


def inner(a: Floats, b: Floats) -> Floats:
    """Inner products over the last axis, of length 3; summed in a fixed order to be the same on every machine."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def unit(vectors: Floats) -> Floats:
    """``vectors`` [..., 3] scaled to length 1."""
    return vectors / np.sqrt(inner(vectors, vectors))[..., None]
