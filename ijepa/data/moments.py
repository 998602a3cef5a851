"""Mean and standard deviation of each channel over all pixels of a set of images, in float64."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.data.decode import Picture
from ijepa.data.sets import Images, UnreadableError
from ijepa.data.workers import start_worker

PART = 2**20
"""Pixels converted to float64 at a time."""


class Moments(NamedTuple):
    """pixels: number of pixels; mean: [C]; squares: [C], sums of squared deviations from the mean."""

    pixels: int
    mean: Any
    squares: Any

    def merged(self, other: "Moments") -> "Moments":
        """The moments of both sets of pixels, numerically stable for large means (Chan et al., 1979)."""
        pixels = self.pixels + other.pixels
        apart = np.subtract(other.mean, self.mean)
        mean = self.mean + apart * (other.pixels / pixels)
        return Moments(pixels, mean, self.squares + other.squares + apart**2 * (self.pixels * other.pixels / pixels))

    @property
    def std(self) -> Any:
        """[C]."""
        return np.sqrt(self.squares / self.pixels)


def moments(image: Picture) -> Moments:
    """The moments of one image: 8-bit values are scaled to 0..1, tensors are not scaled."""
    values, scale = (TF.pil_to_tensor(image), 255) if isinstance(image, Image.Image) else (image, 1)
    found = Moments(0, np.zeros(len(values)), np.zeros(len(values)))
    for rows in values.split(max(PART // values.shape[2], 1), dim=1):
        part = rows.double().flatten(1) / scale
        mean = part.mean(dim=1, keepdim=True)
        squares = (part - mean).square().sum(dim=1)
        found = found.merged(Moments(part.shape[1], mean.flatten().numpy(), squares.numpy()))
    return found


def measure(
    images: Images, indices: Sequence[int], workers: int, report: Callable[[int], None], every_seconds: float = 10
) -> tuple[Moments | None, list[str]]:
    """The moments of some images (None if none can be read), and a message for each unreadable one.

    Args:
        images: the data set.
        indices: which images to use.
        workers: data loader processes; the result does not depend on them.
        report: called regularly with the number of images done.
        every_seconds: interval of these calls.
    """
    loader = DataLoader(
        _Measured(images, indices), batch_size=None, num_workers=workers, worker_init_fn=start_worker, collate_fn=_as_is
    )
    total: Moments | None = None
    faults: list[str] = []
    reported = time.monotonic()
    for done, found in enumerate(loader, start=1):
        if isinstance(found, str):
            faults.append(found)
        else:
            total = found if total is None else total.merged(found)
        if time.monotonic() - reported >= every_seconds:
            reported = time.monotonic()
            report(done)
    return total, faults


class _Measured(Dataset[Moments | str]):
    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Moments | str:
        try:
            return moments(self.images.read(self.indices[index]))
        except UnreadableError as fault:
            return str(fault)


def _as_is(found: Any) -> Any:
    return found
