"""Random parts of images, for training; images say how they are read most cheaply."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from ijepa.data.decode import Picture


class Box(NamedTuple):
    """A part of an image, in pixels; files may be decoded at one of ``scale`` parts of their size."""

    top: int
    left: int
    height: int
    width: int
    scale: int = 1


SCALES = (8, 4, 2)
"""At one of these parts of their size, files can be decoded with less work."""


def scale_of(box: Box, size: tuple[int, int]) -> int:
    """The largest of `SCALES` at which a box still has as many pixels as ``size``, in height and in width; else 1."""
    times = min(box.height / size[0], box.width / size[1])
    return next((scale for scale in SCALES if scale <= times), 1)


class RandomCrop:
    """A random part of an image, resized to ``size`` (height, width), bilinear: torchvision's RandomResizedCrop.

    A part that is to become less than half as large has edges at multiples of 2, 4 or 8 pixels, see `scale_of`.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]) -> None:
        self.size = size
        self._transform = v2.RandomResizedCrop(size, scale=scale, ratio=aspect, antialias=True)

    def box(self, height: int, width: int) -> Box:
        """A part of an image of this size, drawn from torch's random numbers."""
        drawn = self._transform.make_params([torch.empty(1, height, width, device="meta")])
        box = Box(drawn["top"], drawn["left"], drawn["height"], drawn["width"])
        scale = scale_of(box, self.size)
        if scale == 1:
            return box
        top, left = (scale * round(start / scale) for start in (box.top, box.left))
        bottom = scale * min(round((box.top + box.height) / scale), height // scale)
        right = scale * min(round((box.left + box.width) / scale), width // scale)
        return Box(top, left, bottom - top, right - left, scale)

    def cut(self, image: Picture, box: Box) -> Tensor:
        """A part of an image, resized, [C, H, W]: uint8 for a PIL image, float32 for a float32 tensor [C, H, W]."""
        cropped: Any = TF.resized_crop(image, *box[:4], list(self.size), antialias=True)
        return cropped if isinstance(cropped, Tensor) else TF.pil_to_tensor(cropped)

    def __call__(self, image: Picture) -> Tensor:
        """A part of an image that is decoded already; see `cut`."""
        return self.cut(image, self.box(*TF.get_size(image)))


@runtime_checkable
class ReadsCrops(Protocol):
    """Images of which a part costs less than the whole."""

    def read_crop(self, index: int, crop: RandomCrop) -> Tensor:
        """As ``crop(read(index))``, up to rounding and resampling; raises `UnreadableError` like ``read``."""
        ...
