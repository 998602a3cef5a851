"""What a scene is: settings, objects, camera and light, in world units with z up and the ground at z = 0."""

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
WIDTH = np.array([1.0, 0.8, 0.88])
HEIGHT = np.array([1.0, 0.8, 0.85])
FOOTPRINT = np.array([1.0, 0.8 * 1.4143, 0.88])
REACH = np.array([1.0, 0.8 * 1.7321, 1.2235])
"""Of each shape, in radii of its size: half the width, half the height, and the radii, rounded up, of a vertical
cylinder and of a sphere around it."""

MOST_OBJECTS = 10
LEAST_SIDE = 8
TARGET = np.array([0.0, -0.05, 0.25])
"""Where the camera looks."""
VIEW = 0.43, 0.36
"""Tangents of half the angle of view, to the sides and up, that all objects lie in; the picture shows no less."""


@dataclass(frozen=True)
class Settings:
    """What the scenes of a data set have in common.

    Args:
        image_size: height and width in pixels; the objects fill the frame whatever its proportions.
        min_objects: fewest objects in a scene.
        max_objects: most objects in a scene, at most `MOST_OBJECTS`.

    Raises:
        ConfigError: when a value cannot be.
    """

    image_size: tuple[int, int] = (64, 64)
    min_objects: int = 3
    max_objects: int = 10

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < LEAST_SIDE:
            raise ConfigError("image_size", self.image_size, f"height and width in pixels, each at least {LEAST_SIDE}")
        if not 1 <= self.max_objects <= MOST_OBJECTS:
            raise ConfigError("max_objects", self.max_objects, f"must be in 1..{MOST_OBJECTS}")
        if not 1 <= self.min_objects <= self.max_objects:
            raise ConfigError("min_objects", self.min_objects, f"must be in 1..max_objects, here {self.max_objects}")


@dataclass
class Scenes:
    """B scenes of up to M objects, nearest first; beyond ``count`` the entries mean nothing (``distance`` is inf).

    Distances are depths: along the camera's viewing axis, from the camera to an object's centre, as in CLEVR.
    """

    count: Ints  # [B]
    shape: Ints  # [B, M] index into SHAPES, and so on
    colour: Ints  # [B, M]
    material: Ints  # [B, M]
    size: Ints  # [B, M]
    place: Floats  # [B, M, 2] where on the ground
    turn: Floats  # [B, M, 2] cosine and sine of the rotation about the vertical axis
    distance: Floats  # [B, M]
    camera: Floats  # [B, 3] position
    light: Floats  # [B, 3] unit vector towards the key light

    def rows(self, chosen: NDArray[Any]) -> "Scenes":
        """Some of the scenes."""
        parts: dict[str, Any] = {part.name: getattr(self, part.name)[chosen] for part in fields(self)}
        return Scenes(**parts)

    @property
    def present(self) -> NDArray[np.bool_]:
        """[B, M]: which entries are objects."""
        return np.arange(self.shape.shape[1]) < self.count[:, None]

    @property
    def half_width(self) -> Floats:
        """[B, M]: radius of spheres and cylinders, half the edge of cubes."""
        return RADII[self.size] * WIDTH[self.shape]

    @property
    def half_height(self) -> Floats:
        """[B, M]: also the height of the centre, since objects stand on the ground."""
        return RADII[self.size] * HEIGHT[self.shape]

    @property
    def footprint(self) -> Floats:
        """[B, M]: radius of the vertical cylinder around an object."""
        return RADII[self.size] * FOOTPRINT[self.shape]

    @property
    def centre(self) -> Floats:
        """[B, M, 3]."""
        return np.concatenate([self.place, self.half_height[..., None]], axis=-1)


def axes(camera: Floats) -> tuple[Floats, Floats, Floats]:
    """Unit vectors to the right, up and forward of cameras at ``camera`` [..., 3] that look at `TARGET`, level."""
    forward = unit(TARGET - camera)
    x, y, z = forward[..., 0], forward[..., 1], forward[..., 2]
    right = unit(np.stack([y, -x, np.zeros_like(x)], axis=-1))
    up = np.stack([right[..., 1] * z, -right[..., 0] * z, right[..., 0] * y - right[..., 1] * x], axis=-1)
    return right, up, forward


def inner(a: Floats, b: Floats) -> Floats:
    """Inner products over the last axis, of length 3; added in a fixed order, so that they are the same everywhere."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def unit(vectors: Floats) -> Floats:
    """``vectors`` [..., 3] at length 1."""
    return vectors / np.sqrt(inner(vectors, vectors))[..., None]
