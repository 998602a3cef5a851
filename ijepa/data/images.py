"""Decoding, cropping and resizing of single images."""

from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode(path: str, channels: int) -> Image.Image:
    """The image at ``path``, upright, in grey (1), RGB (3) or RGBA (4).

    Transparent places become white in grey and RGB. 16-bit grey is scaled to 8 bit.

    Raises:
        OSError, ValueError, SyntaxError: when the file is no image or broken off.
    """
    with Image.open(path) as image:
        image.load()
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # damaged metadata raise anything; the picture itself is whole
            upright = image
        return convert(upright, channels)


def convert(image: Image.Image, channels: int) -> Image.Image:
    """``image`` in the mode for ``channels``."""
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
    if image.mode == "RGBA" and channels != 4:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = MODES[channels]
    return image if image.mode == mode else image.convert(mode)


class TrainTransform:
    """A random resized crop (bilinear), as in the published recipe, and optionally a flip.

    Called with a seed, it is a function of (image, seed); the process's random state is left as it was.
    """

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float], flip: bool
    ) -> None:
        crop = v2.RandomResizedCrop(size, scale=scale, ratio=aspect, antialias=True)
        self.transform = v2.Compose([crop, v2.RandomHorizontalFlip()] if flip else [crop])

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """[C, H, W] uint8."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond: it tells CUDA, too
            return TF.pil_to_tensor(self.transform(image))


class EvalTransform:
    """Resizes to cover size / crop, then cuts the centre; the result is in 0..1.

    Args:
        size: height and width of the result.
        crop: share of the resized image that is kept along the tighter side (ImageNet's 256 -> 224: .875).
        channels: PIL images are converted to so many; None to take them as they are.
    """

    def __init__(self, size: tuple[int, int], crop: float = 1.0, channels: int | None = None) -> None:
        self.size = size
        self.crop = crop
        self.channels = channels

    def __call__(self, image: Image.Image | Tensor) -> Tensor:
        """[C, H, W] float32 in 0..1, from a PIL image or a tensor [C, H, W]."""
        if self.channels is not None and isinstance(image, Image.Image):
            image = convert(image, self.channels)
        height, width = TF.get_size(image)
        factor = max(self.size[0] / height, self.size[1] / width) / self.crop
        cover = [max(round(height * factor), self.size[0]), max(round(width * factor), self.size[1])]
        resized: Any = TF.resize(image, cover, antialias=True)
        cropped = TF.center_crop(resized, list(self.size))
        tensor = cropped if isinstance(cropped, Tensor) else TF.pil_to_tensor(cropped)
        return TF.to_dtype(tensor, torch.float32, scale=True)

    def __repr__(self) -> str:
        return f"EvalTransform(size={self.size}, crop={self.crop})"
