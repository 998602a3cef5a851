"""CLEVR-like scenes (Johnson et al., 2017), rendered on demand: a function of (settings, seed, index) alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import FAR
from ijepa.data.scenes.labelling import TASKS, class_names, distance_edges, labels, labels_and_shapes, labels_of
from ijepa.data.scenes.layout import draw
from ijepa.data.scenes.rendering import picture
from ijepa.data.scenes.scene import COLOURS, LEAST_SIDE, MATERIALS, SHAPES, SIZES, Ints, Scenes, Settings

__all__ = [
    "COLOURS",
    "FAR",
    "LEAST_SIDE",
    "MATERIALS",
    "SHAPES",
    "SIZES",
    "TASKS",
    "Rendered",
    "Scenes",
    "Settings",
    "class_names",
    "distance_edges",
    "draw",
    "labels",
    "labels_and_shapes",
    "render",
]


@dataclass(frozen=True)
class Rendered:
    """One image and everything that is known about it.

    Args:
        image: [H, W, 3] sRGB.
        depth: [H, W] distance along the viewing axis of what lies at a pixel's centre, the ground included; `FAR`
            beyond that distance and in the sky.
        instances: [H, W] which object lies at a pixel's centre: 0 for none, 1..n, the nearest object first.
        boxes: [n, 4] x0, y0, x1, y1 around each object's pixels in ``instances``, x1 and y1 exclusive; zeros for an
            object without any.
        settings: what it was rendered with.
        scene: the layout, a batch of one.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instances: NDArray[np.uint8]
    boxes: Ints
    settings: Settings
    scene: Scenes

    @property
    def labels(self) -> dict[str, int]:
        """The class of each of TASKS. The first call in a process takes a second or two, for the bins of distances."""
        return {task: int(value[0]) for task, value in labels_of(self.settings, self.scene).items()}


def render(settings: Settings, seed: int, index: int) -> Rendered:
    """The image with this ``index``, in [0, 2**32)."""
    scene = draw(settings, seed, np.array([index]))
    image, depth, instances = picture(scene, 0, settings.image_size)
    return Rendered(image, depth, instances, _boxes(instances, int(scene.count[0])), settings, scene)


def _boxes(instances: NDArray[np.uint8], count: int) -> Ints:
    """The smallest boxes around 1..count: [count, 4]."""
    numbers = np.arange(1, count + 1)[:, None, None]
    seen = instances == numbers  # [n, H, W]
    boxes = np.zeros((count, 4), dtype=np.int64)
    for axis, occupied in enumerate((seen.any(axis=1), seen.any(axis=2))):
        boxes[:, axis] = occupied.argmax(axis=1)
        boxes[:, axis + 2] = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    boxes[~seen.any(axis=(1, 2))] = 0
    return boxes
