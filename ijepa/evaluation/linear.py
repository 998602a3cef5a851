"""The linear probe: many heads are trained together; each augmented batch passes the frozen encoder once for all heads.

The paper (appendix A.2) takes the best of the last layer or the last four, with or without batch norm, and of several
learning rates and weight decays. Here the best is chosen on held-out training images.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ijepa.config import Linear
from ijepa.data.datamodule import DataModule
from ijepa.distributed.ranks import ALONE
from ijepa.evaluation import augmentation, specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features, of_last
from ijepa.evaluation.heads import Heads, Setting, settings_of
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import ConfigError, UnavailableError
from ijepa.util.randomness import Stream, seed_of

BASE = 256
"""Batch size that learning rates are given for; they scale with it. Also that of feature extraction."""
CHUNK = 4096
"""Rows that all heads see at once."""


class HeadGroup(NamedTuple):
    """Heads of one label set that see the same features."""

    label_set: str
    layers: int
    settings: list[Setting]
    heads: Heads


class LinearTask(ConfiguredTask[Linear]):
    """Accuracy of a linear probe."""

    name = "linear"
    spec = specs.LINEAR
    fault: type[ConfigError] = ConfigError
    """The error raised if the images lack a label set."""

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy of the head that is best on held-out training images, and details of all."""
        layers = sorted({1 if evaluated.encoder is None else count for count in self.config.layers})
        train, test = ctx.features(evaluated, layers[-1], BASE)
        if self.config.labels:
            train, test = (features.only(self.config.labels) for features in (train, test))
        held, kept = augmentation.hold_out(self.config.holdout, len(train.values), ctx.seed)
        groups = _groups(self.config, layers, train, ctx)
        _train(self.config, evaluated, ctx, groups, train, kept, layers[-1], f"{evaluated.name}: {self.name} probe")
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
            found[name] = TaskResult({self.spec.name: measured}, {"chosen": best._asdict(), "heads": listed})
        return found

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One, of the chosen head."""
        return [self.spec]

    def validate(self, data: DataModule) -> None:
        """Refuses images without the label sets that the task is about."""
        names = label_sets(data)
        for name in self.config.labels or []:
            if name not in names:
                raise self.fault(
                    f"{self.key}.labels",
                    self.config.labels,
                    f"the images have no labels {name}; try {', '.join(names)}",
                )


class CountTask(LinearTask):
    """Accuracy of a linear probe that counts objects (Clevr/Count)."""

    name = "count"
    spec = specs.COUNT
    fault = UnavailableError  # its label set is what the task is about


class DistanceTask(LinearTask):
    """Accuracy of a linear probe of the nearest object's distance (Clevr/Dist)."""

    name = "distance"
    spec = specs.DISTANCE
    fault = UnavailableError


def _groups(task: Linear, layers: list[int], train: Features, ctx: EvalContext) -> list[HeadGroup]:
    made = []
    for name, labels in train.labels.items():
        for count, batch_norm in itertools.product(layers, task.batch_norm):
            settings = settings_of(count, batch_norm, task.lr, task.weight_decay)
            heads = Heads(
                train.values.shape[1] // layers[-1] * count,
                int(labels.max()) + 1,
                torch.tensor([setting.lr for setting in settings]),
                torch.tensor([setting.weight_decay for setting in settings]),
                batch_norm,
                task.momentum,
                task.optimizer == "lars",
                torch.Generator().manual_seed(seed_of(ctx.seed, Stream.LINEAR_INIT, 0, 0)),
            )
            made.append(HeadGroup(name, count, settings, heads.to(ctx.runtime.device)))
    return made


def _train(
    task: Linear,
    evaluated: EvaluatedModel,
    ctx: EvalContext,
    groups: list[HeadGroup],
    train: Features,
    kept: Tensor,
    most: int,
    title: str,
) -> None:
    """Trains on the rows ``kept`` of ``train``; each image goes through the encoder once for all heads."""
    size = augmentation.size_of(task.batch_size, len(kept))
    whole = task.crop_scale is None
    ranks = ALONE if whole else ctx.runtime.ranks
    batches = augmentation.EpochBatchSampler(train.indices[kept], size, task.epochs, ctx.seed, ranks)
    seen = _remembered if whole else _encoded
    for group in groups:
        group.heads.train()
    for step, (features, rows) in enumerate(
        progress(seen(task, evaluated, ctx, train, batches, most), ctx.title(title), len(batches))
    ):
        factor = batches.size / BASE * _factor(task, step / batches.steps)
        for group in groups:
            labels = train.labels[group.label_set][rows].to(features.device)
            group.heads.loss(of_last(features, group.layers, most), labels).backward()  # type: ignore[no-untyped-call]
            group.heads.step(factor)
    for group in groups:
        group.heads.eval()


Seen = Iterator[tuple[Tensor, Tensor]]
"""Features [B, D] on the device, and the rows of their images."""


def _encoded(
    task: Linear,
    evaluated: EvaluatedModel,
    ctx: EvalContext,
    train: Features,
    batches: augmentation.EpochBatchSampler,
    most: int,
) -> Seen:
    """Of augmented images, which pass through the encoder; of all devices together."""
    ranks, device, rows = (
        ctx.runtime.ranks,
        ctx.runtime.device,
        augmentation.rows_of(train, len(ctx.data.source.train)),
    )
    augment = augmentation.Augment(task.crop_scale, task.flip, ctx.data.eval_transform)
    embed = evaluated.embed(ctx.runtime, most)
    for images, indices in augmentation.loader(ctx, augment, batches, ctx.seed):
        with torch.no_grad():
            features = ranks.gathered(embed(images.to(device, non_blocking=True)))
        yield features, rows[ranks.gathered(indices)]


def _remembered(
    task: Linear,
    evaluated: EvaluatedModel,
    ctx: EvalContext,
    train: Features,
    batches: augmentation.EpochBatchSampler,
    most: int,
) -> Seen:
    """Of whole images, and their mirror images where half are to be mirrored: these are known, or found once."""
    rows = augmentation.rows_of(train, len(ctx.data.source.train))
    mirrored = ctx.mirrored(evaluated, most, BASE) if task.flip else train.values
    for batch in batches:
        indices = torch.tensor([view.image for view in batch])
        which = rows[indices]
        flipped = augmentation.flipped(ctx.seed, batch[0].epoch, indices)[:, None] & task.flip
        yield torch.where(flipped, mirrored[which], train.values[which]).to(ctx.runtime.device), which


def _factor(task: Linear, epoch: float) -> float:
    """Of the learning rate after so many epochs."""
    if task.milestones is not None:
        return float(0.1 ** sum(epoch >= milestone for milestone in task.milestones))
    return float(task.lr_end + (1 - task.lr_end) * (1 + math.cos(math.pi * epoch / task.epochs)) / 2)


@torch.no_grad()
def _predict(group: HeadGroup, values: Tensor, most: int) -> Tensor:
    """Each head's class of each row: [H, n]."""
    device = group.heads.weight.device
    chunks = of_last(values, group.layers, most).split(CHUNK)
    return torch.cat([group.heads(chunk.to(device)).argmax(dim=2).cpu() for chunk in chunks], dim=1)
