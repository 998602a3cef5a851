"""Methods that I-JEPA is compared with, on the same encoder, crops, optimiser and schedule: supervised, and SimCLR."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.config import TrainConfig
from ijepa.data.datamodule import ResumableBatchSampler, SampleIndex
from ijepa.data.images import TrainTransform
from ijepa.data.sets import CLASS, Images, Source
from ijepa.models.pretrained import PretrainedEncoder, Spec
from ijepa.run import build
from ijepa.run.encoders import spec as encoder_spec
from ijepa.training.base import TrainingModule
from ijepa.training.schedule import TrainingSchedule, training_schedule
from ijepa.util.errors import UserError
from ijepa.util.randomness import Stream, seed_of

HIDDEN = 256
"""Width of SimCLR's projection head."""
TEMPERATURE = 0.5
"""SimCLR's for CIFAR-10 (Chen et al., 2002.05709, appendix B.9)."""

Pair = tuple[Tensor, Tensor]


class Baseline(TrainingModule):
    """An encoder trained by gradient descent alone; no EMA copy.

    Args:
        config: model, optimiser and schedule are used, as in pretraining.
        images: number of training images.
        views: of each image; the encoder encodes all of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TrainConfig, images: int, views: int) -> None:
        schedule = training_schedule(
            config.schedule, config.optimizer, config.data.batch_size, images, TrainingSchedule
        )
        betas = config.optimizer.betas[0], config.optimizer.betas[1]
        super().__init__(schedule, betas, config.optimizer.eps, config.optimizer.name == "muon")
        self.spec: Spec = encoder_spec(config.model, config.data)
        torch.manual_seed(config.seed)
        self.network = self.spec.build()
        self.register_buffer("mean", torch.tensor(self.spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.spec.std).view(-1, 1, 1), persistent=False)
        flops = build.image_flops(config).encoder
        self.image_flops = views * flops.step(flops.patches)

    def flops(self, batch: Any) -> float:
        return self.image_flops * len(batch[1])

    def encoder(self) -> PretrainedEncoder:
        """A copy with the current weights."""
        network = self.spec.build()
        network.load_state_dict(self.network.state_dict())
        return PretrainedEncoder(network, self.spec).eval().requires_grad_(False)

    def pooled(self, images: Tensor) -> Tensor:
        """Features [B, D] of uint8 images [B, C, H, W]."""
        features: Tensor = self.network((images.float() / 255 - self.mean) / self.std)
        return features.mean(dim=1)


class Supervised(Baseline):
    """Classification with a linear head on the average-pooled features."""

    def __init__(self, config: TrainConfig, source: Source) -> None:
        super().__init__(config, len(source.train), views=1)
        self.head = nn.Linear(self.spec.width, len(source.classes[CLASS]))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        images, labels = batch
        loss = F.cross_entropy(self.head(self.pooled(images)), labels)
        return {"loss": loss, "parts": {"total": loss.detach()}}


class TwoViews(Baseline):
    """SimCLR with lightly's head, loss and augmentation."""

    def __init__(self, config: TrainConfig, source: Source) -> None:
        loss, heads = _lightly("loss"), _lightly("models.modules.heads")
        super().__init__(config, len(source.train), views=2)
        self.head = heads.SimCLRProjectionHead(self.spec.width, HIDDEN, HIDDEN // 2)
        self.loss = loss.NTXentLoss(TEMPERATURE)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        first, second = self.head(self.pooled(torch.cat(batch))).chunk(2)
        loss: Tensor = self.loss(first, second)
        return {"loss": loss, "parts": {"total": loss.detach()}}


class _Crops(Dataset[tuple[Tensor, int]]):
    """Random crops and labels; other crops in each pass."""

    def __init__(self, images: Images, transform: TrainTransform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __getitem__(self, sample: SampleIndex) -> tuple[Tensor, int]:
        seed = seed_of(self.seed, Stream.TRAIN_CROP, sample.epoch, sample.image)
        return self.transform(self.images.read(sample.image), seed), self.images.labels[CLASS][sample.image]


class _Views(Dataset[Pair]):
    """Two augmented views of each image."""

    def __init__(self, images: Images, transform: Callable[[Image.Image], list[Image.Image]], seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __getitem__(self, sample: SampleIndex) -> Pair:
        image: Any = self.images.read(sample.image)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, Stream.TRAIN_CROP, sample.epoch, sample.image))
            first, second = (TF.pil_to_tensor(view) for view in self.transform(image))
        return first, second


class _Batches(L.LightningDataModule):
    """Batches from the trainer's step to the end of the schedule, so that a run resumes exactly."""

    def __init__(self, items: _Crops | _Views, config: TrainConfig) -> None:
        super().__init__()
        self.items = items
        self.config = config

    def train_dataloader(self) -> DataLoader[Any]:
        batch_size, seed, steps = self.config.data.batch_size, self.config.seed, self.config.schedule.max_steps
        assert self.trainer is not None
        assert steps is not None
        sampler = ResumableBatchSampler(
            len(self.items.images), batch_size, seed, steps, self.trainer.global_step, 1, 0, 1
        )
        items: Any = self.items  # by SampleIndex, not int
        return DataLoader(items, batch_sampler=sampler, num_workers=self.config.data.workers or 0)  # type: ignore[arg-type]


def supervised(config: TrainConfig, source: Source) -> tuple[Baseline, L.LightningDataModule]:
    """The module and its batches."""
    data = build.data(config.data, source, None, 1, config.hardware, config.seed)
    return Supervised(config, source), _Batches(_Crops(source.train, data.transform, config.seed), config)


def two_views(config: TrainConfig, source: Source) -> tuple[Baseline, L.LightningDataModule]:
    """The module and its batches."""
    side = config.data.image_size[0]
    transform = _lightly("transforms").SimCLRTransform(input_size=side, gaussian_blur=0.0, normalize=None)
    for view in transform.transforms:  # images stay images: the module normalises them
        del view.transform.transforms[-1]  # to float tensors
    return TwoViews(config, source), _Batches(_Views(source.train, transform, config.seed), config)


def _lightly(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"lightly.{name}")
    except ImportError:
        raise UserError("two_views needs lightly; install it: pip install .[benchmarks]") from None
