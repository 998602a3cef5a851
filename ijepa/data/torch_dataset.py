"""A user's torch Dataset as a set of images."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from torchvision.transforms.v2 import functional as TF

from ijepa.data.arrays import convert_channels
from ijepa.data.decode import Picture, convert
from ijepa.data.sets import Labels
from ijepa.util.errors import UserError


class DatasetImages:
    """The images of a map-style Dataset; labels are not read, because that would mean reading every image.

    Args:
        dataset: see `ijepa.build_datamodule`.
        channels: images are converted to this number of channels.

    Raises:
        UserError: if the Dataset has no length, is empty, or its first item is not an image.
    """

    labels: Labels = {}  # noqa: RUF012  # a property in `Images`

    def __init__(self, dataset: Dataset[Any], channels: int) -> None:
        self.dataset: Any = dataset
        self.channels = channels
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise UserError(f"{type(dataset).__name__}: needs __len__ and __getitem__; try a map-style Dataset")
        if not len(self):
            raise UserError(f"{type(dataset).__name__}: is empty; needs an image")
        self.read(0)

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"item {index}"

    def read(self, index: int) -> Picture:
        """A PIL image or a float32 tensor [C, H, W]; errors of the Dataset itself are passed on."""
        item = self.dataset[index]
        image = item[0] if isinstance(item, tuple | list) and item else item
        try:
            return self._converted(image)
        except ValueError as fault:
            raise UserError(f"{type(self.dataset).__name__}[{index}]: {fault}") from None

    def _converted(self, image: Any) -> Picture:
        if isinstance(image, Image.Image):
            return convert(image, self.channels)
        if not isinstance(image, Tensor) or image.ndim != 3:
            kind = f"tensor {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"is a {kind}; try a PIL image or a tensor [C, H, W], alone or first in a tuple")
        return convert_channels(TF.to_dtype(image, torch.float32, scale=not image.is_floating_point()), self.channels)
