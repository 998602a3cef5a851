"""Images with their maps, for per-pixel prediction."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.data.datamodule import DataModule
from ijepa.data.images import EvalTransform
from ijepa.data.sets import Images, UnreadableError, kinds, read_map
from ijepa.data.workers import start_worker
from ijepa.evaluation.augmentation import EpochBatchSampler, EpochSample
from ijepa.evaluation.context import EvalContext
from ijepa.evaluation.progress import progress
from ijepa.util.errors import UnavailableError

LISTED = 10
"""Maximum number of unreadable images named in the terminal."""


class Pair(NamedTuple):
    """An image [C, H, W] as evaluations see it, its map [H, W], and what is wrong with either: "" for nothing."""

    image: Tensor
    map: Tensor
    fault: str


class Pairs(Dataset[Pair]):
    """Images and their maps of one kind, by number or `EpochSample`, in the evaluation's view."""

    def __init__(self, images: Images, kind: str, transform: EvalTransform, channels: int) -> None:
        self.images = images
        self.kind = kind
        self.transform = transform
        self.channels = channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int | EpochSample) -> Pair:
        index = at.image if isinstance(at, EpochSample) else at
        size = self.transform.size
        try:
            values = read_map(self.images, index, self.kind)
            image = self.images.read(index)
            found, wanted = list(values.shape), TF.get_size(image)
            if found != wanted:
                problem = f"its {self.kind} map has {found[1]}x{found[0]} pixels, the image has {wanted[1]}x{wanted[0]}"
                raise UnreadableError(f"{self.images.name(index)} ({problem})")
        except UnreadableError as error:
            kind = torch.float32 if self.kind == "depth" else torch.int64
            return Pair(torch.zeros(self.channels, *size), torch.zeros(size, dtype=kind), str(error))
        return Pair(self.transform(image), self.transform.of_map(values), "")


class Largest(Dataset[tuple[int, str]]):
    """The greatest class index in each segmentation map, and what is wrong with it."""

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
    """Refuses images without maps of this kind, for training and validation; raises ConfigError."""
    if not len(data.source.val):
        raise UnavailableError("data.val_fraction", 0, f"leaves no validation images for task={kind}")
    if any(kind not in kinds(images) for images in (data.source.train, data.source.val)):
        problem = f"task={kind} needs data=folder with a folder of {kind} maps that mirrors data.root, or data=scenes"
        raise UnavailableError(f"data.{kind}_root", None, problem)


def training(ctx: EvalContext, kind: str, batches: EpochBatchSampler) -> DataLoader[Any]:
    """Training images with maps, batch by batch."""
    return DataLoader(
        _pairs(ctx, kind, ctx.data.source.train),
        batch_sampler=batches,  # type: ignore[arg-type]  # views are keys, not whole numbers
        num_workers=ctx.data.workers,
        worker_init_fn=start_worker,
    )


def ordered(ctx: EvalContext, kind: str, images: Images, indices: list[int], batch_size: int) -> DataLoader[Any]:
    """Those of ``images`` at ``indices``, with maps, in this order."""
    pairs = _pairs(ctx, kind, images)
    return DataLoader(pairs, batch_size, sampler=indices, num_workers=ctx.data.workers, worker_init_fn=start_worker)


def left_out(ctx: EvalContext, kind: str) -> dict[str, None]:
    """What was wrong with images and their maps of this kind so far, in the order of finding."""
    found: dict[str, None] = ctx.kept.setdefault(f"{kind} faults", {})
    return found


def readable(ctx: EvalContext, kind: str, images: Tensor, maps: Tensor, faults: list[str]) -> tuple[Tensor, Tensor]:
    """Those of a batch without a fault, on the context's device; names the others, once."""
    known = left_out(ctx, kind)
    for fault in faults:
        if fault and fault not in known:
            known[fault] = None
            ctx.data.unreadable[fault] = fault
            if ctx.runtime.ranks.rank:
                continue
            if len(known) <= LISTED:
                print(f"unreadable, skipped in the evaluation: {fault}")
            elif len(known) == LISTED + 1:
                print(f"more are unreadable; metrics.json will list all under {kind}, left_out")
    kept, device = torch.tensor([not fault for fault in faults]), ctx.runtime.device
    return images[kept].to(device, non_blocking=True), maps[kept].to(device, non_blocking=True)


def classes(ctx: EvalContext, batch_size: int) -> int:
    """One more than the greatest class index in the maps of training and validation."""
    most = -1
    for part, images in (("training", ctx.data.source.train), ("validation", ctx.data.source.val)):
        loader = DataLoader(
            Largest(images), batch_size, num_workers=ctx.data.workers, worker_init_fn=start_worker
        )  # fmt: skip
        title = ctx.title(f"classes in the maps of {part} images")
        for largest, _ in progress(loader, title, len(loader)):
            most = max(most, int(largest.max()))
    return most + 1


def _pairs(ctx: EvalContext, kind: str, images: Images) -> Pairs:
    return Pairs(images, kind, ctx.data.eval_transform, ctx.data.channels)
