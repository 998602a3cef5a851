"""Mean and standard deviation of each channel over all pixels of a set of images, in float64."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median_low
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.data.decode import Picture
from ijepa.data.loader import Loader, batched
from ijepa.data.sets import Images, UnreadableError

OTHER_SCALE = 100
"""How many times as far as the median image's values those of an image in other units reach."""
DEPTHS = range(8, 17)
"""Bits per value of pictures that are decoded to floats in 0..1."""
NEGATIVE = -0.1
"""Values below this are no noise of reflectances, where pictures are in 0..1."""
SAMPLE = 4096
"""Values of an image that are compared with those of a picture."""
NAMED = 3
"""Images in other units that are named."""
BATCH = 8
"""Images that a process measures at a time."""
CHUNK = 2**20
"""Pixels converted to float64 at a time."""


class Range(NamedTuple):
    """The smallest and largest value of an image; ``is_picture``: it is in 0..1 however dark or bright it is."""

    low: float
    high: float
    is_picture: bool = False


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
) -> tuple[Moments | None, dict[str, Range], list[str]]:
    """The moments of the images at ``indices`` (None if none can be read).

    Also the range of values of each readable image, by its name, and a message for each unreadable one.

    Args:
        images: the data set.
        indices: the images to use.
        workers: number of data loader processes; it does not affect the result.
        report: called regularly with the number of images done.
        every_seconds: interval of these calls.
    """
    batches = Loader(_MomentsDataset(images, indices), batched(len(indices), BATCH), workers, list)
    total: Moments | None = None
    ranges: dict[str, Range] = {}
    errors: list[str] = []
    reported = time.monotonic()
    for done, result in enumerate((result for batch in batches for result in batch), start=1):
        if isinstance(result, str):
            errors.append(result)
        else:
            moments, values = result
            total = moments if total is None else total.merged(moments)
            ranges[images.name(indices[done - 1])] = values
        if time.monotonic() - reported >= every_seconds:
            reported = time.monotonic()
            report(done)
    return total, ranges, errors


def other_units(ranges: Mapping[str, Range]) -> list[str]:
    """Lines that name the images whose values may be in other units than those of most; [] if none.

    Of pictures and of images that are negative or far beyond 0..1, the fewer. Else among images in 0..1 (reflectances),
    those with values beyond -1..2; among others, those that reach `OTHER_SCALE` times as far as the median image, or,
    if that reaches beyond `OTHER_SCALE`, those in 0..1. Images of a single value say nothing.
    """
    reach = {name: max(abs(each.low), abs(each.high)) for name, each in ranges.items() if each.low < each.high}
    if not reach:
        return []
    typical = median_low(reach.values())  # no mean of two kinds
    pictures = [name for name in reach if ranges[name].is_picture]
    floats = [name for name in reach if not ranges[name].is_picture]
    beyond = [name for name in floats if ranges[name].low < NEGATIVE or ranges[name].high > 2]
    rest = "the others do not" if len(pictures) == len(beyond) else "most do not"
    if pictures and len(pictures) < len(beyond):
        odd, what = pictures, f"have values in 0..1, {rest}"
    elif pictures and beyond:
        odd, what = beyond, f"have values far outside 0..1, {rest}"
    elif typical <= 1:
        odd = [name for name in reach if ranges[name].low < -1 or ranges[name].high > 2]
        what = "have values far outside 0..1, most do not"
    elif typical > OTHER_SCALE and any(value <= 1 for value in reach.values()):
        odd, what = [name for name, value in reach.items() if value <= 1], "have values in 0..1, most do not"
    else:
        odd = [name for name, value in reach.items() if value > OTHER_SCALE * typical]
        what = f"have values beyond {OTHER_SCALE} times those of most images"
    if not odd:
        return []
    odd.sort(key=lambda name: -reach[name])
    named = [f"{name} ({ranges[name].low:.4g} to {ranges[name].high:.4g})" for name in odd[:NAMED]]
    more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
    return [f"other units? {len(odd)} of {len(ranges)} images {what}: {', '.join(named)}{more}",
            "if they are, mean and std suit neither kind: convert or remove one"]  # fmt: skip


def _is_scaled(image: Tensor) -> bool:
    """Whether values in 0..1 are whole numbers of 8 to 16 bits, divided by the largest; not for 0 and 1 alone."""
    values = image.flatten()[:: max(image.numel() // SAMPLE, 1)].double()
    steps = [values * (2**bits - 1) for bits in DEPTHS]
    return bool((values % 1 != 0).any()) and any(bool((each - each.round()).abs().max() < 0.02) for each in steps)


class _MomentsDataset(Dataset[tuple[Moments, Range] | str]):
    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images = images
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Moments, Range] | str:
        try:
            image = self.images.read(self.indices[index])
            if isinstance(image, Image.Image):
                return image_moments(image), Range(0.0, 1.0, is_picture=True)
            low, high = float(image.min()), float(image.max())
            return image_moments(image), Range(low, high, low >= 0 and high <= 1 and _is_scaled(image))
        except UnreadableError as fault:
            return str(fault)
