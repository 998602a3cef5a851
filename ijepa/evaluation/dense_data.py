"""Images with their maps, for per-pixel prediction."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.data.datamodule import DataModule
from ijepa.data.images import EvalTransform
from ijepa.data.loader import Loader, batched
from ijepa.data.sets import Images, UnreadableError, map_kinds, read_map
from ijepa.evaluation.augmentation import EpochBatchSampler, EpochSample
from ijepa.evaluation.context import EvalContext
from ijepa.evaluation.progress import progress
from ijepa.util.errors import UnavailableError

MAX_PRINTED = 10
"""Maximum number of unreadable images named in the terminal."""


class ImageWithMap(NamedTuple):
    """A transformed image [C, H, W], its map [H, W], and why either is unreadable ("" if both are readable)."""

    image: Tensor
    map: Tensor
    fault: str


class ImagesWithMaps(Dataset[ImageWithMap]):
    """Images and their maps of one kind, transformed for evaluation, by index or `EpochSample`."""

    def __init__(self, images: Images, kind: str, transform: EvalTransform, channels: int) -> None:
        self.images = images
        self.kind = kind
        self.transform = transform
        self.channels = channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | EpochSample) -> ImageWithMap:
        index = key.image if isinstance(key, EpochSample) else key
        size = self.transform.size
        try:
            values = read_map(self.images, index, self.kind)
            image = self.images.read(index)
            size_of_map, size_of_image = list(values.shape), TF.get_size(image)
            if size_of_map != size_of_image:
                (rows, columns), (height, width) = size_of_map, size_of_image
                problem = f"its {self.kind} map has {columns}x{rows} pixels, the image has {width}x{height}"
                raise UnreadableError(f"{self.images.name(index)} ({problem})")
        except UnreadableError as error:
            dtype = torch.float32 if self.kind == "depth" else torch.int64
            return ImageWithMap(torch.zeros(self.channels, *size), torch.zeros(size, dtype=dtype), str(error))
        return ImageWithMap(self.transform(image), self.transform.transform_map(values), "")


class LargestClass(Dataset[tuple[int, str]]):
    """The largest class index in each segmentation map, and "", or -1 and why the map is unreadable."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, str]:
        try:
            return int(read_map(self.images, index, "segmentation").max()), ""
        except UnreadableError as error:
            return -1, str(error)


def validate(kind: str, data: DataModule) -> None:
    """Raises UnavailableError if training or validation images have no maps of this kind."""
    if not len(data.source.val):
        raise UnavailableError("data.val_fraction", 0, f"leaves no validation images for task={kind}")
    if any(kind not in map_kinds(images) for images in (data.source.train, data.source.val)):
        problem = f"task={kind} needs data=folder with a folder of {kind} maps that mirrors data.root, or data=scenes"
        raise UnavailableError(f"data.{kind}_root", None, problem)


def train_loader(ctx: EvalContext, kind: str, batches: EpochBatchSampler) -> Loader:
    """Batches of training images with their maps, as `ImageWithMap`."""
    return ctx.data.loader(_images_with_maps(ctx, kind, ctx.data.source.train), batches)


def eval_loader(ctx: EvalContext, kind: str, images: Images, indices: list[int], batch_size: int) -> Loader:
    """Batches of the images at ``indices``, in this order, with their maps, as `ImageWithMap`."""
    batches = [[indices[row] for row in rows] for rows in batched(len(indices), batch_size)]
    return ctx.data.loader(_images_with_maps(ctx, kind, images), batches)


def unreadable(ctx: EvalContext, kind: str) -> dict[str, None]:
    """Why images and their maps of this kind could not be read so far, in order of occurrence."""
    reasons: dict[str, None] = ctx.scratch.setdefault(f"{kind} faults", {})
    return reasons


def readable(ctx: EvalContext, kind: str, images: Tensor, maps: Tensor, faults: list[str]) -> tuple[Tensor, Tensor]:
    """The readable images and maps of a batch, on the context's device; prints each unreadable one once."""
    known = unreadable(ctx, kind)
    for fault in faults:
        if fault and fault not in known:
            known[fault] = None
            ctx.data.unreadable[fault] = fault
            if ctx.runtime.ranks.rank:
                continue
            if len(known) <= MAX_PRINTED:
                print(f"unreadable, skipped in the evaluation: {fault}")
            elif len(known) == MAX_PRINTED + 1:
                print(f"more are unreadable; metrics.json will list all under {kind}, left_out")
    is_readable, device = torch.tensor([not fault for fault in faults]), ctx.runtime.device
    return images[is_readable].to(device, non_blocking=True), maps[is_readable].to(device, non_blocking=True)


def count_classes(ctx: EvalContext, batch_size: int) -> int:
    """One more than the largest class index in the maps of training and validation images."""
    largest_class = -1
    for split, images in (("training", ctx.data.source.train), ("validation", ctx.data.source.val)):
        loader = ctx.data.loader(LargestClass(images), batched(len(images), batch_size))
        title = ctx.title(f"classes in the maps of {split} images")
        for batch, _ in progress(loader, title, len(loader)):
            largest_class = max(largest_class, int(batch.max()))
    return largest_class + 1


def _images_with_maps(ctx: EvalContext, kind: str, images: Images) -> ImagesWithMaps:
    return ImagesWithMaps(images, kind, ctx.data.eval_transform, ctx.data.channels)
