"""The linear probe: many heads at once over one pass of the frozen encoder, on augmented images.

The paper (appendix A.2) takes the best of the last layer or the last four, of a linear head with or without batch norm,
and of several learning rates and weight decays. Here a held-out part of the training images tells which that is.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as TF

from ijepa.config import Linear
from ijepa.data.images import EvalTransform, TrainTransform
from ijepa.data.sets import Images
from ijepa.data.workers import start_worker
from ijepa.evaluation.bench import Bench, Found, Subject
from ijepa.evaluation.features import Features, of_last
from ijepa.evaluation.heads import Heads
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.evaluation.progress import progress
from ijepa.randomness import seed_of, shuffled

HOLDOUT_STREAM, ORDER_STREAM, VIEW_STREAM, START_STREAM = 6, 9, 10, 11
BASE = 256
"""Images that a learning rate is given for."""
ASPECT = (3 / 4, 4 / 3)
"""Of crops, as usual."""
CHUNK = 4096
"""Rows that all heads see at once."""


class Setting(NamedTuple):
    """What tells a head from the others."""

    layers: int
    batch_norm: bool
    lr: float
    weight_decay: float


class View(NamedTuple):
    """One showing of an image."""

    epoch: int
    image: int


class Views(Dataset[tuple[Tensor, int]]):
    """Augmented training images by `View`: [C, H, W] float32 in 0..1, and the image's index; a function of the seed."""

    def __init__(self, images: Images, task: Linear, plain: EvalTransform, seed: int) -> None:
        self.images = images
        self.plain = plain
        self.flip = task.flip
        scale = task.crop_scale and (task.crop_scale[0], task.crop_scale[1])
        self.crop = TrainTransform(plain.size, scale, ASPECT, False) if scale else None
        self.seed = seed

    def __getitem__(self, view: View) -> tuple[Tensor, int]:
        seed = seed_of(self.seed, VIEW_STREAM, view.epoch, view.image)
        image = self.images.read(view.image)
        shown = self.crop(image, seed) if self.crop is not None else self.plain(image)
        shown = TF.to_dtype(shown, torch.float32, scale=True)
        return (shown.flip(-1) if self.flip and seed & 1 else shown), view.image


class Group(NamedTuple):
    """Heads of one label set that see the same features."""

    label_set: str
    layers: int
    settings: list[Setting]
    heads: Heads


def evaluate(task: Linear, subject: Subject, bench: Bench) -> dict[str, Found]:
    """By label set: top-1 accuracy of the head that is best on held-out training images; all heads in the details."""
    layers = sorted({1 if subject.encoder is None else count for count in task.layers})
    train, test = bench.features(subject, layers[-1], BASE)
    order = torch.from_numpy(shuffled(bench.seed, HOLDOUT_STREAM, 0, len(train.values)))
    held, kept = order.split([count := max(round(task.holdout * len(order)), 1), len(order) - count])
    groups = _groups(task, layers, train, bench)
    _train(task, subject, bench, groups, train, kept, layers[-1])
    rows: dict[str, list[tuple[float, Setting, Measured]]] = {name: [] for name in train.labels}
    for group in groups:
        labels = train.labels[group.label_set][held]
        judged, predicted = (_predict(group, values, layers[-1]) for values in (train.values[held], test.values))
        for setting, theirs, classes in zip(group.settings, judged, predicted, strict=True):
            score = (theirs == labels).float().mean().item()
            rows[group.label_set].append((score, setting, accuracy(classes, test.labels[group.label_set])))
    found = {}
    for name, every in rows.items():
        _, best, measured = max(every, key=lambda row: row[0])
        listed = [{**setting._asdict(), "holdout": score, "test": m.value} for score, setting, m in every]
        found[name] = Found({"linear": measured}, {"chosen": best._asdict(), "heads": listed})
    return found


def metrics(task: Linear, several: bool) -> list[str]:
    """One, of the chosen head."""
    return ["linear"]


def _groups(task: Linear, layers: list[int], train: Features, bench: Bench) -> list[Group]:
    made = []
    for name, labels in train.labels.items():
        for count, batch_norm in itertools.product(layers, task.batch_norm):
            settings = [Setting(count, batch_norm, *pair) for pair in itertools.product(task.lr, task.weight_decay)]
            heads = Heads(
                train.values.shape[1] // layers[-1] * count,
                int(labels.max()) + 1,
                torch.tensor([setting.lr for setting in settings]),
                torch.tensor([setting.weight_decay for setting in settings]),
                batch_norm,
                task.momentum,
                task.optimizer == "lars",
                torch.Generator().manual_seed(seed_of(bench.seed, START_STREAM, 0, 0)),
            )
            made.append(Group(name, count, settings, heads.to(bench.runtime.device)))
    return made


def _train(
    task: Linear, subject: Subject, bench: Bench, groups: list[Group], train: Features, kept: Tensor, most: int
) -> None:
    """Passes over the images number ``kept`` of ``train``; an image goes through the encoder once for all heads."""
    size = max(min(task.batch_size, len(kept) // 8), 2)  # an epoch has several steps on small data, too
    steps = len(kept) // size
    rows = torch.full((int(train.indices.max()) + 1,), -1)
    rows[train.indices] = torch.arange(len(train.indices))
    batches = list(_batches(train.indices[kept], size, task.epochs, bench.seed))
    loader = DataLoader(
        Views(bench.data.source.train, task, bench.data.eval_transform, bench.seed),
        batch_sampler=batches,  # type: ignore[arg-type]  # views are keys, not whole numbers
        num_workers=bench.data.workers,
        worker_init_fn=start_worker,
    )
    embed, device = subject.embed(bench.runtime, most), bench.runtime.device
    for group in groups:
        group.heads.train()
    title = bench.title(f"{subject.name}: linear probe")
    for step, (images, indices) in enumerate(progress(loader, title, len(batches))):
        with torch.no_grad():
            features = embed(images.to(device, non_blocking=True))
        factor = size / BASE * _factor(task, step / steps)
        for group in groups:
            labels = train.labels[group.label_set][rows[indices]].to(device)
            group.heads.loss(of_last(features, group.layers, most), labels).backward()  # type: ignore[no-untyped-call]
            group.heads.step(factor)
    for group in groups:
        group.heads.eval()


def _batches(indices: Tensor, size: int, epochs: int, seed: int) -> Iterator[list[View]]:
    """Every image once per epoch but for an incomplete last batch, in another order each time."""
    for epoch in range(epochs):
        order = indices[torch.from_numpy(shuffled(seed, ORDER_STREAM, epoch, len(indices)))].tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [View(epoch, index) for index in order[start : start + size]]


def _factor(task: Linear, epoch: float) -> float:
    """Of the learning rate after so many epochs."""
    if task.milestones is not None:
        return float(0.1 ** sum(epoch >= milestone for milestone in task.milestones))
    return float(task.lr_end + (1 - task.lr_end) * (1 + math.cos(math.pi * epoch / task.epochs)) / 2)


@torch.no_grad()
def _predict(group: Group, values: Tensor, most: int) -> Tensor:
    """Each head's class of each row: [H, n]."""
    device = group.heads.weight.device
    chunks = of_last(values, group.layers, most).split(CHUNK)
    return torch.cat([group.heads(chunk.to(device)).argmax(dim=2).cpu() for chunk in chunks], dim=1)
