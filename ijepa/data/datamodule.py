"""The LightningDataModule: order of images, crops and masks, each a pure function of (seed, step, position)."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2 import functional as TF

from ijepa.data.heldout import evenly_spaced
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.loader import TIMEOUT, Loader, batched
from ijepa.data.sets import Images, Source, UnreadableError
from ijepa.masking import Masking, Masks
from ijepa.util.randomness import Stream, seed_of


class Batch(NamedTuple):
    """One micro-batch of a device.

    images: [B, C, H, W] uint8, or float32 (8-bit images: in 0..1) if any image has more than 8 bits.
    masks: the images' masks; None if the run draws none.
    unreadable: one message per unreadable file, which was replaced by the next readable image.
    positions: [B] of the images in the global batch of the step, for random numbers of a module's own; on the CPU.
    """

    images: Tensor
    masks: Masks | None
    unreadable: list[str]
    positions: NDArray[np.int64] | None = None


class SampleIndex(NamedTuple):
    """A sample: ``position`` in the global batch of ``step``; ``epoch``, which seeds the crop; index of ``image``."""

    step: int
    position: int
    epoch: int
    image: int


class ResumableBatchSampler(Sampler[list[SampleIndex]]):
    """A batch sampler that yields one device's micro-batches from ``first_step`` to the end of the run.

    Sample i = step * batch_size + position is image i modulo n in the shuffle of epoch i // n. So every epoch contains
    each image once, for any batch size. Devices and micro-batches take consecutive positions of the global batch.

    Args:
        images: number n of images.
        batch_size: effective (global) batch size.
        seed: seed of the shuffles.
        max_steps: steps of the whole run.
        first_step: the first step of this process.
        accumulation: micro-batches per step and device.
        rank: global rank of this process.
        world_size: number of processes.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, max_steps: int, first_step: int, accumulation: int,
        rank: int, world_size: int,
    ) -> None:  # fmt: skip
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.steps = range(first_step, max_steps)
        self.accumulation = accumulation
        self.rank = rank
        self.world_size = world_size
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Micro-batches of the whole run: a resumed trainer also counts those before the checkpoint."""
        return self.steps.stop * self.accumulation

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        micro_batch_size = self.batch_size // (self.world_size * self.accumulation)
        for step in self.steps:
            for micro in range(self.accumulation):
                start = (micro * self.world_size + self.rank) * micro_batch_size
                yield [self.sample_index(step, position) for position in range(start, start + micro_batch_size)]

    def sample_index(self, step: int, position: int) -> SampleIndex:
        """The sample at ``position`` of ``step``."""
        epoch, index_in_epoch = divmod(step * self.batch_size + position, self.images)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64(seed_of(self.seed, Stream.EPOCH_ORDER, epoch, 0)))
            self._epoch, self._order = epoch, generator.permutation(self.images)
        return SampleIndex(step, position, epoch, int(self._order[index_in_epoch]))


class Crops(Dataset[tuple[SampleIndex, Tensor, list[str]]]):
    """Random crops [C, H, W], by `SampleIndex`; an unreadable file is replaced by the next readable one.

    An item is the sample's index, its crop, and a message for each unreadable file.
    """

    def __init__(self, images: Images, transform: TrainTransform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __getitem__(self, sample: SampleIndex) -> tuple[SampleIndex, Tensor, list[str]]:
        errors: list[str] = []
        for offset in range(len(self.images)):
            seed = seed_of(self.seed, Stream.TRAIN_CROP, sample.epoch, sample.image)
            try:
                crop = self.transform.read(self.images, (sample.image + offset) % len(self.images), seed)
            except UnreadableError as error:
                errors.append(str(error))
                continue
            return sample, crop, errors
        raise UnreadableError(f"no image is readable any more; the last error: {errors[-1]}")


class Collate:
    """Stacks crops and draws their masks, if any."""

    def __init__(self, masking: Masking | None, seed: int) -> None:
        self.masking = masking
        self.seed = seed

    def __call__(self, items: Sequence[tuple[SampleIndex, Tensor, list[str]]]) -> Batch:
        samples, images, errors = zip(*items, strict=True)
        positions = np.array([sample.position for sample in samples])
        masks = None if self.masking is None else self.masking.sample(self.seed, samples[0].step, positions)
        return Batch(_stack(images), masks, [name for names in errors for name in names], positions)


def _stack(images: Sequence[Tensor]) -> Tensor:
    if len({image.dtype for image in images}) > 1:
        images = [TF.to_dtype(image, torch.float32, scale=True) for image in images]
    return torch.stack(list(images))


class EvalImages(Dataset[tuple[Tensor, int]]):
    """Images for evaluation: ([C, H, W] float32, 1), or 0 instead of 1 for an unreadable file."""

    def __init__(self, images: Images, transform: EvalTransform, channels: int) -> None:
        self.images = images
        self.transform = transform
        self.channels = channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            return self.transform(self.images.read(index)), 1
        except UnreadableError:
            return torch.zeros(self.channels, *self.transform.size), 0


class DataModule(L.LightningDataModule):
    """Batches of crops with masks for pretraining; plain images for evaluation.

    Args:
        source: the images.
        masking: draws the masks; None: batches have no masks.
        transform: the random crop.
        eval_transform: resizing and cropping for evaluation.
        channels: number of image channels.
        batch_size: effective (global) batch size: images per step, over all devices and micro-batches.
        accumulation: micro-batches per step and device.
        max_steps: length of the run in steps.
        workers: data loader processes per device.
        seed: seed of image order, crops and masks.
        timeout: see `Loader`.

    Attributes:
        stop: see `Loader`, during training.
    """

    def __init__(
        self,
        source: Source,
        masking: Masking | None,
        transform: TrainTransform,
        eval_transform: EvalTransform,
        channels: int,
        batch_size: int,
        accumulation: int,
        max_steps: int,
        workers: int,
        seed: int,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__()
        self.source = source
        self.masking = masking
        self.transform = transform
        self.eval_transform = eval_transform
        self.channels = channels
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.max_steps = max_steps
        self.workers = workers
        self.seed = seed
        self.timeout = timeout
        self.stop: Callable[[], bool] = lambda: False
        self._copies: torch.cuda.Stream | None = None
        self.unreadable: dict[str, str] = {}  # reason by image name, collected by evaluations

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The number of training images and a hash of their names, to detect other images when a run is resumed.

        The names' common prefix is ignored, so that the folder may be moved.
        """
        names = [self.source.train.name(index) for index in range(len(self.source.train))]
        start = len(os.path.commonprefix(names))  # noqa: RUF071
        digest = hashlib.sha256("\0".join(name[start:] for name in names).encode(errors="surrogateescape"))
        return {"images": len(names), "names": digest.hexdigest()}

    def train_name(self, step: int, position: int) -> str:
        """The name of the training image at ``position`` in the global batch of ``step`` (from 0)."""
        count = len(self.source.train)
        sampler = ResumableBatchSampler(count, self.batch_size, self.seed, self.max_steps, 0, 1, 0, 1)
        return self.source.train.name(sampler.sample_index(step, position).image)

    def train_dataloader(self) -> Loader:
        """A single loader from the trainer's step to the end of the run, across epochs; yields `Batch`."""
        trainer = self.trainer
        batch_sampler = ResumableBatchSampler(
            len(self.source.train),
            self.batch_size,
            self.seed,
            self.max_steps,
            trainer.global_step if trainer else 0,
            self.accumulation,
            trainer.global_rank if trainer else 0,
            trainer.world_size if trainer else 1,
        )
        crops, collate = Crops(self.source.train, self.transform, self.seed), Collate(self.masking, self.seed)
        pinned = torch.cuda.is_available()
        return Loader(crops, batch_sampler, self.workers, collate, self.timeout, self.stop, pinned)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The batch on ``device``; a GPU copies it on a stream of its own, while the previous step runs."""
        if device.type != "cuda":
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        self._copies = self._copies or torch.cuda.Stream(device)
        with torch.cuda.stream(self._copies):
            moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        steps = torch.cuda.current_stream(device)
        steps.wait_stream(self._copies)
        for tensor in (moved.images, *(moved.masks or ())):
            if tensor is not None:
                tensor.record_stream(steps)  # its memory is not used again before the step is done
        return moved

    def eval_dataloader(self, images: Images, batch_size: int) -> Loader:
        """A loader of ``images`` in order; see `EvalImages`."""
        return self.loader(EvalImages(images, self.eval_transform, self.channels), batched(len(images), batch_size))

    def loader(self, dataset: Dataset[Any], batches: Iterable[Sequence[Any]]) -> Loader:
        """A loader of the batches of another data set, by their keys."""
        return Loader(dataset, batches, self.workers, timeout=self.timeout)

    @property
    def monitor_images(self) -> Images:
        """The images on which a run is monitored: validation images, or training images if there are none."""
        return self.source.val if len(self.source.val) else self.source.train

    def examples(self, count: int) -> Tensor:
        """Up to ``count`` readable images, evenly spaced among `monitor_images`.

        Returns:
            [n, C, H, W] float32, see `EvalImages`.
        """
        dataset = EvalImages(self.monitor_images, self.eval_transform, self.channels)
        readable_images = [
            image for image, readable in (dataset[index] for index in evenly_spaced(len(dataset), count)) if readable
        ]
        return (
            torch.stack(readable_images)
            if readable_images
            else torch.empty(0, self.channels, *self.eval_transform.size)
        )
