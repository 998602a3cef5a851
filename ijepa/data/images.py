"""Cropping and resizing of single images."""

import math
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as TF

from ijepa.data.arrays import convert_channels
from ijepa.data.crops import RandomCrop
from ijepa.data.decode import Picture, convert
from ijepa.data.limits import without_pillow_limit
from ijepa.data.sets import Images, read_crop

MAX_ASPECT = 8
"""Images with a larger aspect ratio are cropped to their middle before they are resized."""

MAX_UNCROPPED = 64
"""Images whose longer side would become more than this many times as long as that of the model's input are refused."""


class TrainTransform:
    """A random resized crop (bilinear), as in the published recipe; optionally a flip and `jittered` colours.

    Context and targets are of the same crop. The result depends only on (image, seed); the process's random state is
    not changed.
    """

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float], flip: bool,
        jitter: float = 0.0,
    ) -> None:  # fmt: skip
        self.crop = RandomCrop(size, scale, aspect)
        self.flip = v2.RandomHorizontalFlip() if flip else None
        self.jitter = jitter

    def __call__(self, image: Picture, seed: int) -> Tensor:
        """[C, H, W]: uint8 for a PIL image, float32 for a float32 tensor [C, H, W]."""
        return self._transformed(lambda: self.crop(image), seed)

    def read(self, images: Images, index: int, seed: int) -> Tensor:
        """The same of an image of a set, of which no more is decoded than is needed; raises `UnreadableError`."""
        return self._transformed(lambda: read_crop(images, index, self.crop), seed)

    def _transformed(self, cropped: Callable[[], Tensor], seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]), without_pillow_limit():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed CUDA: 1 ms
            pixels = cropped()
            if self.flip is not None:
                pixels = self.flip(pixels)
            return jittered(pixels, self.jitter) if self.jitter else pixels


def jittered(image: Tensor, strength: float) -> Tensor:
    """Changes brightness, contrast and saturation of [C, H, W], each by a random factor in 1 +- ``strength``.

    Unlike torchvision's ColorJitter, for any number of channels (saturation: three) and for floats of any range.
    """
    brightness, contrast, saturation = (1 + strength * (2 * torch.rand(3) - 1)).tolist()
    values = image.float() * brightness
    mean = values.mean()
    values = mean + contrast * (values - mean)
    if len(values) == 3:
        grey = values.mean(dim=0, keepdim=True)
        values = grey + saturation * (values - grey)
    return values if image.is_floating_point() else values.round().clamp(0, 255).to(image.dtype)


class EvalTransform:
    """Resizes to cover size / crop, then crops the centre; integers are scaled to 0..1, floats are not scaled.

    Args:
        size: height and width of the result.
        crop: fraction of the resized image's tighter side that is kept (ImageNet's 256 -> 224: .875).
        channels: convert images to this number of channels; None: keep theirs.
        stretch: resize the whole image to ``size`` regardless of its aspect ratio; ``crop`` is ignored.
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
        return self._floats(self._resize_and_crop(self._converted(image), InterpolationMode.BILINEAR))

    def uncropped(self, image: Picture) -> Tensor:
        """The same without the crop: the whole image at the same scale, [C, H', W'] float32, at least ``size``.

        Raises:
            ValueError: also if the image is too long.
        """
        image = self._converted(image)
        with without_pillow_limit():
            height, width = TF.get_size(image)
            target = list(self.size) if self.stretch else self._cover(height, width)
            if max(side / own for side, own in zip(target, self.size, strict=True)) > MAX_UNCROPPED:
                raise ValueError(f"{width}x{height} pixels are too long for a map; divide the image")
            return self._floats(TF.resize(image, target, interpolation=InterpolationMode.BILINEAR, antialias=True))

    def transform_map(self, values: Tensor) -> Tensor:
        """The same transform for an image's map [H, W], with nearest-neighbour interpolation."""
        cropped: Tensor = self._resize_and_crop(values[None], InterpolationMode.NEAREST_EXACT)
        return cropped[0]

    def _resize_and_crop(self, image: Picture, interpolation: InterpolationMode) -> Any:
        with without_pillow_limit():
            if self.stretch:
                return TF.resize(image, list(self.size), interpolation=interpolation, antialias=True)
            height, width = TF.get_size(image)
            factor = self._factor(height, width)
            if max(height * factor / self.size[0], width * factor / self.size[1]) > MAX_ASPECT / self.crop:
                image = self._crop_to_middle(image, height, width, factor)
                height, width = TF.get_size(image)
            resized: Any = TF.resize(image, self._cover(height, width, factor), interpolation, antialias=True)
            return TF.center_crop(resized, list(self.size))

    def _factor(self, height: int, width: int) -> float:
        return max(self.size[0] / height, self.size[1] / width) / self.crop

    def _cover(self, height: int, width: int, factor: float | None = None) -> list[int]:
        """Height and width of a resized image."""
        factor = factor or self._factor(height, width)
        return [max(round(height * factor), self.size[0]), max(round(width * factor), self.size[1])]

    def _crop_to_middle(self, image: Picture, height: int, width: int, factor: float) -> Any:
        """The middle of a very long image, with a margin for the filter; resizing the whole could exhaust memory."""
        margin = math.ceil(1 / factor) + 1
        kept_sides = [
            min(side, math.ceil(wanted / factor) + 2 * margin)
            for side, wanted in zip((height, width), self.size, strict=True)
        ]
        return TF.center_crop(image, [n + (side - n) % 2 for side, n in zip((height, width), kept_sides, strict=True)])

    def _converted(self, image: Picture) -> Picture:
        if self.channels is None:
            return image
        if isinstance(image, Image.Image):
            return convert(image, self.channels)
        if image.shape[-3] == self.channels:
            return image
        return convert_channels(TF.to_dtype(image, torch.float32, scale=True), self.channels)

    @staticmethod
    def _floats(image: Any) -> Tensor:
        tensor = image if isinstance(image, Tensor) else TF.pil_to_tensor(image)
        return TF.to_dtype(tensor, torch.float32, scale=True)

    def __repr__(self) -> str:
        return f"EvalTransform(size={self.size}, {'stretch' if self.stretch else f'crop={self.crop}'})"
