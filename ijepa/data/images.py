"""Cropping and resizing of single images."""

import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as TF

from ijepa.data.arrays import fit
from ijepa.data.decode import Picture, convert
from ijepa.data.limits import without_pillows_limit

LONG = 8
"""Images with a more extreme aspect ratio than this are cut to their middle before they are resized."""


class TrainTransform:
    """A random resized crop (bilinear), as in the published recipe, and optionally a horizontal flip.

    The result depends only on (image, seed); the process's random state is not changed.
    """

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float], flip: bool
    ) -> None:
        crop = v2.RandomResizedCrop(size, scale=scale, ratio=aspect, antialias=True)
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip()] if flip else [crop])

    def __call__(self, image: Picture, seed: int) -> Tensor:
        """[C, H, W]: uint8 for a PIL image, float32 for a float32 tensor [C, H, W]."""
        with torch.random.fork_rng(devices=[]), without_pillows_limit():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond: it tells CUDA, too
            crop: Any = self.transform(image)
            return crop if isinstance(crop, Tensor) else TF.pil_to_tensor(crop)


class EvalTransform:
    """Resizes to cover size / crop, then crops the centre; the result is in 0..1, or in the units of a float image.

    With ``stretch`` the whole image is kept, whatever its aspect ratio, and ``crop`` is ignored.

    Args:
        size: height and width of the result.
        crop: fraction of the resized image that is kept along the tighter side (ImageNet's 256 -> 224: .875).
        channels: convert images to this number; None: leave them as they are.
        stretch: resize the whole image to ``size``.
    """

    def __init__(
        self, size: tuple[int, int], crop: float = 1.0, channels: int | None = None, stretch: bool = False
    ) -> None:
        self.size = size
        self.crop = crop
        self.channels = channels
        self.stretch = stretch

    def __call__(self, image: Picture) -> Tensor:
        """[C, H, W] float32, from a PIL image or a tensor [C, H, W].

        Raises:
            ValueError: if the image cannot be converted to this number of channels.
        """
        if self.channels is not None:
            image = self._convert(image, self.channels)
        shown = self._view(image, InterpolationMode.BILINEAR)
        tensor = shown if isinstance(shown, Tensor) else TF.pil_to_tensor(shown)
        return TF.to_dtype(tensor, torch.float32, scale=True)

    def of_map(self, values: Tensor) -> Tensor:
        """The same transform for an image's map [H, W], with nearest-neighbour interpolation."""
        shown: Tensor = self._view(values[None], InterpolationMode.NEAREST_EXACT)
        return shown[0]

    def _view(self, image: Picture, interpolation: InterpolationMode) -> Any:
        with without_pillows_limit():
            if self.stretch:
                return TF.resize(image, list(self.size), interpolation=interpolation, antialias=True)
            height, width = TF.get_size(image)
            factor = max(self.size[0] / height, self.size[1] / width) / self.crop
            if max(height * factor / self.size[0], width * factor / self.size[1]) > LONG / self.crop:
                image = self._middle(image, height, width, factor)
                height, width = TF.get_size(image)
            cover = [max(round(height * factor), self.size[0]), max(round(width * factor), self.size[1])]
            resized: Any = TF.resize(image, cover, interpolation=interpolation, antialias=True)
            return TF.center_crop(resized, list(self.size))

    def _middle(self, image: Picture, height: int, width: int, factor: float) -> Any:
        """The middle of a very long image, with a margin for the filter; resizing all of it would fill the memory."""
        margin = math.ceil(1 / factor) + 1
        kept = [
            min(side, math.ceil(wanted / factor) + 2 * margin)
            for side, wanted in zip((height, width), self.size, strict=True)
        ]
        return TF.center_crop(image, [n + (side - n) % 2 for side, n in zip((height, width), kept, strict=True)])

    @staticmethod
    def _convert(image: Picture, channels: int) -> Picture:
        if isinstance(image, Image.Image):
            return convert(image, channels)
        return image if image.shape[-3] == channels else fit(TF.to_dtype(image, torch.float32, scale=True), channels)

    def __repr__(self) -> str:
        return f"EvalTransform(size={self.size}, {'stretch' if self.stretch else f'crop={self.crop}'})"
