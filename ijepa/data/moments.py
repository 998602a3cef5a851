"""Mean and standard deviation of each channel over all pixels of a set of images, in float64."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.data.decode import Picture
from ijepa.data.loader import Loader, batched
from ijepa.data.sets import Images, UnreadableError

BATCH = 8
"""Images that a process measures at a time."""
CHUNK = 2**20
"""Pixels converted to float64 at a time."""


class Moments(NamedTuple):
    """Moments by channel. pixels: number of pixels; mean: [C]; squares: [C] summed squared deviations from the mean."""

    pixels: int
    mean: Any
    squares: Any

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets of pixels, numerically stable for large means (Chan et al., 1979)."""
        pixels = self.pixels + other.pixels
        delta = np.subtract(other.mean, self.mean)
        mean = self.mean + delta * (other.pixels / pixels)
        return Moments(pixels, mean, self.squares + other.squares + delta**2 * (self.pixels * other.pixels / pixels))

    @property
    def std(self) -> Any:
        """The population standard deviation of each channel: [C]."""
        return np.sqrt(self.squares / self.pixels)


def image_moments(image: Picture) -> Moments:
    """The moments of one image; PIL images are scaled to 0..1, tensors are not scaled."""
    values, scale = (TF.pil_to_tensor(image), 255) if isinstance(image, Image.Image) else (image, 1)
    total = Moments(0, np.zeros(len(values)), np.zeros(len(values)))
    for rows in values.split(max(CHUNK // values.shape[2], 1), dim=1):
        chunk = rows.double().flatten(1) / scale
        mean = chunk.mean(dim=1, keepdim=True)
        squares = (chunk - mean).square().sum(dim=1)
        total = total.merged(Moments(chunk.shape[1], mean.flatten().numpy(), squares.numpy()))
    return total


def dataset_moments(
    images: Images, indices: Sequence[int], workers: int, report: Callable[[int], None], every_seconds: float = 10
) -> tuple[Moments | None, list[str]]:
    """The moments of the images at ``indices`` (None if none can be read), and a message for each unreadable one.

    Args:
        images: the data set.
        indices: the images to use.
        workers: number of data loader processes; it does not affect the result.
        report: called regularly with the number of images done.
        every_seconds: interval of these calls.
    """
    batches = Loader(_MomentsDataset(images, indices), batched(len(indices), BATCH), workers, list)
    total: Moments | None = None
    errors: list[str] = []
    reported = time.monotonic()
    for done, result in enumerate((result for batch in batches for result in batch), start=1):
        if isinstance(result, str):
            errors.append(result)
        else:
            total = result if total is None else total.merged(result)
        if time.monotonic() - reported >= every_seconds:
            reported = time.monotonic()
            report(done)
    return total, errors


class _MomentsDataset(Dataset[Moments | str]):
    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Moments | str:
        try:
            return image_moments(self.images.read(self.indices[index]))
        except UnreadableError as fault:
            return str(fault)
