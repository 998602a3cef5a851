"""Augmented training images for linear and attentive probes and fine-tuning."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2 import functional as TF

from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.loader import Loader
from ijepa.data.sets import Images
from ijepa.distributed.ranks import Ranks
from ijepa.evaluation.context import EvalContext
from ijepa.evaluation.features import Features
from ijepa.util.errors import UserError
from ijepa.util.randomness import Stream, seed_of, seeded, shuffled, words

ASPECT = (3 / 4, 4 / 3)
"""Range of the crops' aspect ratios."""
MAX_TRANSLATION = 0.45
"""RandAugment translates an image by at most this fraction of its side."""
PIL_MODES = {1: "L", 3: "RGB"}
"""PIL modes that RandAugment supports, by number of channels."""


class EpochSample(NamedTuple):
    """An image in an epoch: both determine its augmentation."""

    epoch: int
    image: int


class Augment:
    """A random resized crop, RandAugment and a random horizontal flip.

    Args:
        crop_scale: range of the crop's area, as fractions of the image's; None: no crop, only ``eval_transform``.
        flip: mirror half of the images.
        eval_transform: the transform of evaluations; its size is that of the crops.
        randaugment: in timm's notation, such as ``rand-m9-mstd0.5-inc1``; for the channels of `PIL_MODES` only.
    """

    def __init__(
        self, crop_scale: list[float] | None, flip: bool, eval_transform: EvalTransform, randaugment: str | None = None
    ) -> None:
        self.eval_transform = eval_transform
        self.flip = flip
        scale = crop_scale and (crop_scale[0], crop_scale[1])
        self.crop = TrainTransform(eval_transform.size, scale, ASPECT, False) if scale else None
        self.randaugment = None if randaugment is None else randaugment_transform(randaugment, eval_transform.size)

    def __call__(self, images: Images, index: int, seed: int) -> Tensor:
        """The augmented image [C, H, W], float32 in 0..1, or in the units of a float image."""
        if self.crop is not None:
            pixels = self.crop.read(images, index, seed)
        else:
            pixels = self.eval_transform(images.read(index))
        if self.randaugment is not None:
            mode = PIL_MODES[len(pixels)]
            with seeded(seed):
                picture = self.randaugment(TF.to_pil_image(pixels).convert("RGB"))
            pixels = TF.pil_to_tensor(picture.convert(mode))
        pixels = TF.to_dtype(pixels, torch.float32, scale=True)
        return pixels.flip(-1) if self.flip and seed & 1 else pixels


def randaugment_transform(randaugment: str, size: tuple[int, int]) -> Any:
    """RandAugment of PIL images, from timm; an invalid ``randaugment`` raises whatever timm raises."""
    return rand_augment_transform(randaugment, {"translate_const": int(min(size) * MAX_TRANSLATION)})


class AugmentedDataset(Dataset[tuple[Tensor, int]]):
    """By `EpochSample`: the augmented image and its index, determined by the seed."""

    def __init__(self, images: Images, augment: Augment, seed: int) -> None:
        self.images = images
        self.augment = augment
        self.seed = seed

    def __getitem__(self, sample: EpochSample) -> tuple[Tensor, int]:
        seed = seed_of(self.seed, Stream.PROBE_CROP, sample.epoch, sample.image)
        return self.augment(self.images, sample.image, seed), sample.image


def flipped(seed: int, epoch: int, images: Tensor) -> Tensor:
    """Which of ``images`` [B] (indices) `Augment` mirrors in this epoch: [B] bool."""
    bits = words(seed, Stream.PROBE_CROP, epoch, images.numpy(), 1)[:, 0] & np.uint64(1)
    return torch.from_numpy(bits.astype(bool))


class EpochBatchSampler(Sampler[list[EpochSample]]):
    """A batch sampler: each image once per epoch, in a new random order; the incomplete last batch is dropped.

    Args:
        indices: the images' indices.
        size: effective batch size, over all processes.
        epochs: number of epochs.
        seed: seed of the orders.
        ranks: the processes; each gets an equal part of every batch.

    Raises:
        UserError: if there are fewer images than the batch size.
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
        """Steps per epoch."""
        return len(self.indices) // self.size

    def __len__(self) -> int:
        return self.steps * self.epochs

    def __iter__(self) -> Iterator[list[EpochSample]]:
        for epoch in range(self.epochs):
            order = self.indices[torch.from_numpy(shuffled(self.seed, Stream.PROBE_ORDER, epoch, len(self.indices)))]
            for batch in order[: self.steps * self.size].split(self.size):
                yield [EpochSample(epoch, index) for index in batch[self.ranks.rank :: self.ranks.world_size].tolist()]


def loader(ctx: EvalContext, augment: Augment, batches: EpochBatchSampler, seed: int) -> Loader:
    """Batches of augmented training images and their indices."""
    return ctx.data.loader(AugmentedDataset(ctx.data.source.train, augment, seed), batches)


def capped_batch_size(batch_size: int, images: int) -> int:
    """Batch size, at most an eighth of the images, so that an epoch has several steps on small data, too."""
    return max(min(batch_size, images // 8), 2)


def scaled_lr(lr: float, size: int, batch_size: int) -> float:
    """Adam's learning rate for batches of ``size``, if ``lr`` is meant for ``batch_size``: square-root scaling.

    Malladi et al., "On the SDEs and scaling rules for adaptive gradient algorithms" (2205.10287).
    """
    return float(lr * math.sqrt(size / batch_size))


def hold_out(fraction: float, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Splits the rows of ``count`` images into held-out rows, for model selection, and rows to train on."""
    order = torch.from_numpy(shuffled(seed, Stream.PROBE_HOLDOUT, 0, count))
    number = min(max(round(fraction * count), 1), max(count - 1, 0))
    holdout_rows, train_rows = order.split([number, count - number])
    return holdout_rows, train_rows


def row_by_index(features: Features, images: int) -> Tensor:
    """For each of ``images`` image indices, the image's row in ``features``; -1 if unreadable: [images]."""
    rows = torch.full((images,), -1)
    rows[features.indices] = torch.arange(len(features.indices))
    return rows
