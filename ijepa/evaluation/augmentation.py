"""Augmented training images for linear and attentive probes and fine-tuning."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as TF

from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.sets import Images
from ijepa.data.workers import start_worker
from ijepa.distributed.ranks import Ranks
from ijepa.evaluation.context import EvalContext
from ijepa.evaluation.features import Features
from ijepa.util.errors import UserError
from ijepa.util.randomness import Stream, seed_of, seeded, shuffled, words

ASPECT = (3 / 4, 4 / 3)
"""Of crops, as usual."""
SHIFT = 0.45
"""RandAugment moves an image by at most this share of its side, as usual."""
PICTURES = {1: "L", 3: "RGB"}
"""What RandAugment can distort, by channels."""


class EpochSample(NamedTuple):
    """One showing of an image."""

    epoch: int
    image: int


class Augment:
    """A random resized crop and a flip, or the evaluation's own view where ``crop_scale`` is None; and RandAugment.

    Args:
        crop_scale: share of an image's area that a crop shows.
        flip: mirror half of the images.
        plain: the evaluation's view.
        randaugment: timm's description of it, as ``rand-m9-mstd0.5-inc1``; for `PICTURES` only.
    """

    def __init__(
        self, crop_scale: list[float] | None, flip: bool, plain: EvalTransform, randaugment: str | None = None
    ) -> None:
        self.plain = plain
        self.flip = flip
        scale = crop_scale and (crop_scale[0], crop_scale[1])
        self.crop = TrainTransform(plain.size, scale, ASPECT, False) if scale else None
        self.distort = None if randaugment is None else distortion(randaugment, plain.size)

    def __call__(self, images: Images, index: int, seed: int) -> Tensor:
        """[C, H, W] float32 in 0..1, or in the units of a float image."""
        image = images.read(index)
        shown = self.crop(image, seed) if self.crop is not None else self.plain(image)
        if self.distort is not None:
            mode = PICTURES[len(shown)]
            with seeded(seed):
                picture = self.distort(TF.to_pil_image(shown).convert("RGB"))
            shown = TF.pil_to_tensor(picture.convert(mode))
        shown = TF.to_dtype(shown, torch.float32, scale=True)
        return shown.flip(-1) if self.flip and seed & 1 else shown


def distortion(randaugment: str, size: tuple[int, int]) -> Any:
    """RandAugment of PIL images as timm describes it; raises what timm raises."""
    return rand_augment_transform(randaugment, {"translate_const": int(min(size) * SHIFT)})


class AugmentedDataset(Dataset[tuple[Tensor, int]]):
    """Augmented images by `EpochSample`, and the image's index; a function of the seed."""

    def __init__(self, images: Images, augment: Augment, seed: int) -> None:
        self.images = images
        self.augment = augment
        self.seed = seed

    def __getitem__(self, sample: EpochSample) -> tuple[Tensor, int]:
        seed = seed_of(self.seed, Stream.PROBE_CROP, sample.epoch, sample.image)
        return self.augment(self.images, sample.image, seed), sample.image


def flipped(seed: int, epoch: int, images: Tensor) -> Tensor:
    """Which of ``images`` [B] their views of this epoch mirror."""
    drawn = words(seed, Stream.PROBE_CROP, epoch, images.numpy(), 1)[:, 0] & np.uint64(1)
    return torch.from_numpy(drawn.astype(bool))


class EpochBatchSampler(Sampler[list[EpochSample]]):
    """A batch sampler: each image once per epoch, in a new order each time; incomplete last batches are dropped.

    Args:
        indices: the images' indices.
        size: effective batch size, over all processes.
        epochs: number of epochs.
        seed: seed of the orders.
        ranks: the processes; each gets an equal part of every batch.
    """

    def __init__(self, indices: Tensor, size: int, epochs: int, seed: int, ranks: Ranks) -> None:
        self.indices = indices
        self.size = max(size // ranks.world_size, 1) * ranks.world_size
        self.epochs = epochs
        self.seed = seed
        self.ranks = ranks
        if not self.steps:
            devices = f" on {ranks.world_size} devices" if ranks.world_size > 1 else ""
            problem = f"{len(indices)} training images are too few for batches of {self.size}{devices}"
            raise UserError(f"{problem}; use more images{' or fewer devices' if devices else ''}")

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.indices) // self.size

    def __len__(self) -> int:
        return self.steps * self.epochs

    def __iter__(self) -> Iterator[list[EpochSample]]:
        for epoch in range(self.epochs):
            order = self.indices[torch.from_numpy(shuffled(self.seed, Stream.PROBE_ORDER, epoch, len(self.indices)))]
            for batch in order[: self.steps * self.size].split(self.size):
                yield [EpochSample(epoch, index) for index in batch[self.ranks.rank :: self.ranks.world_size].tolist()]


def loader(ctx: EvalContext, augment: Augment, batches: EpochBatchSampler, seed: int) -> DataLoader[Any]:
    """The views of the training images, batch by batch."""
    return DataLoader(
        AugmentedDataset(ctx.data.source.train, augment, seed),
        batch_sampler=batches,  # type: ignore[arg-type]  # views are keys, not whole numbers
        num_workers=ctx.data.workers,
        worker_init_fn=start_worker,
    )


def size_of(batch_size: int, images: int) -> int:
    """Images per step, capped at an eighth of all, so that an epoch has several steps on small data, too."""
    return max(min(batch_size, images // 8), 2)


def rate_of(lr: float, size: int, batch_size: int) -> float:
    """Adam's learning rate for batches of ``size`` where ``lr`` is meant for ``batch_size``: by the root of the ratio.

    Malladi et al., "On the SDEs and scaling rules for adaptive gradient algorithms" (2205.10287).
    """
    return float(lr * math.sqrt(size / batch_size))


def hold_out(share: float, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Splits the rows of ``count`` images into held-out rows, which choose among heads, and rows for training."""
    order = torch.from_numpy(shuffled(seed, Stream.PROBE_HOLDOUT, 0, count))
    number = min(max(round(share * count), 1), max(count - 1, 0))
    held, kept = order.split([number, count - number])
    return held, kept


def rows_of(train: Features, images: int) -> Tensor:
    """From the index of each of ``images`` to its row among readable ones, or -1."""
    rows = torch.full((images,), -1)
    rows[train.indices] = torch.arange(len(train.indices))
    return rows
