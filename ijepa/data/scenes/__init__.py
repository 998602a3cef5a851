"""CLEVR-like scenes (Johnson et al., 2017), rendered on demand: a function of (settings, seed, index) alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import FAR
from ijepa.data.scenes.labelling import TASKS, class_names, distance_edges, labels, labels_and_objects, labels_of
from ijepa.data.scenes.layout import draw_scenes
from ijepa.data.scenes.rendering import render_buffers
from ijepa.data.scenes.scene import COLOURS, MATERIALS, MIN_SIDE, SHAPES, SIZES, Ints, Scenes, Settings

__all__ = [
    "COLOURS",
    "FAR",
    "MATERIALS",
    "MIN_SIDE",
    "SHAPES",
    "SIZES",
    "TASKS",
    "RenderedScene",
    "Scenes",
    "Settings",
    "class_names",
    "distance_edges",
    "draw_scenes",
    "labels",
    "labels_and_objects",
    "render",
]


@dataclass(frozen=True)
class RenderedScene:
    """A rendered image with its ground truth.

    Args:
        image: [H, W, 3] sRGB.
        depth: [H, W] distance along the viewing axis of the surface at a pixel's centre, including the ground; `FAR`
            for the sky and anything farther away.
        instances: [H, W] the object at a pixel's centre: 0 for none, else 1..n, nearest object first.
        boxes: [n, 4] x0, y0, x1, y1 of each object's pixels in ``instances``, x1 and y1 exclusive; zeros for an object
            without pixels.
        settings: the data set's settings.
        scene: the layout, as a batch of one scene.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instances: NDArray[np.uint8]
    boxes: Ints
    settings: Settings
    scene: Scenes

    @property
    def labels(self) -> dict[str, int]:
        """The class index for each of TASKS; the first call in a process takes 1-2 seconds for `distance_edges`."""
        return {task: int(value[0]) for task, value in labels_of(self.settings, self.scene).items()}


def render(settings: Settings, seed: int, index: int) -> RenderedScene:
    """Renders scene ``index``, in [0, 2**32), of the data set given by ``settings`` and ``seed``."""
    scene = draw_scenes(settings, seed, np.array([index]))
    image, depth, instances = render_buffers(scene, 0, settings.image_size)
    return RenderedScene(image, depth, instances, _boxes(instances, int(scene.count[0])), settings, scene)


def _boxes(instances: NDArray[np.uint8], count: int) -> Ints:
    """The bounding boxes of instances 1..count: [count, 4]."""
    ids = np.arange(1, count + 1)[:, None, None]
    visible = instances == ids  # [n, H, W]
    boxes = np.zeros((count, 4), dtype=np.int64)
    for axis, occupied in enumerate((visible.any(axis=1), visible.any(axis=2))):
        boxes[:, axis] = occupied.argmax(axis=1)
        boxes[:, axis + 2] = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    boxes[~visible.any(axis=(1, 2))] = 0
    return boxes
