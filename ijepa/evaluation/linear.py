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
from ijepa.distributed.ranks import SINGLE_PROCESS
from ijepa.evaluation import augmentation, specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features, last_layers
from ijepa.evaluation.heads import Heads, Setting, setting_grid
from ijepa.evaluation.measures import MetricValue, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import ConfigError, UnavailableError
from ijepa.util.randomness import Stream, seed_of

LR_BATCH_SIZE = 256
"""Learning rates are given for this batch size, and scale linearly with it."""
FEATURE_BATCH_SIZE = 256
"""Images per forward pass when features are extracted."""
CHUNK = 4096
"""Images per forward pass of the heads when they predict."""


class HeadGroup(NamedTuple):
    """Heads of one label set that share their input features."""

    label_set: str
    layers: int
    settings: list[Setting]
    heads: Heads


class HeadScore(NamedTuple):
    """A head's accuracy on held-out training images, and its result on the validation images."""

    holdout: float
    setting: Setting
    test: MetricValue


class TrainingData(NamedTuple):
    """What the heads of one model are trained on.

    features: whole training images, [n, D * layers].
    layers: number of blocks in ``features``.
    """

    model: EvaluatedModel
    ctx: EvalContext
    features: Features
    layers: int


FeatureBatches = Iterator[tuple[Tensor, Tensor]]
"""Features [B, D * layers] on the device, and their images' rows in `TrainingData.features`: [B]."""


class LinearTask(ConfiguredTask[Linear]):
    """Accuracy of a linear probe."""

    name = "linear"
    spec = specs.LINEAR
    missing_labels_error: type[ConfigError] = ConfigError
    """Raised if the images lack a label set."""

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy of the head that is best on held-out training images, and details of all."""
        layers = sorted({1 if model.encoder is None else count for count in self.config.layers})
        train, test = ctx.features(model, layers[-1], FEATURE_BATCH_SIZE)
        if self.config.labels:
            train, test = (features.select_labels(self.config.labels) for features in (train, test))
        holdout_rows, train_rows = augmentation.hold_out(self.config.holdout, len(train.values), ctx.seed)
        groups = _groups(self.config, layers, train, ctx)
        data = TrainingData(model, ctx, train, layers[-1])
        _train(self.config, data, groups, train_rows, f"{model.name}: {self.name} probe")
        scores: dict[str, list[HeadScore]] = {name: [] for name in train.labels}
        for group in groups:
            labels = train.labels[group.label_set][holdout_rows]
            holdout_classes = _predict(group, train.values[holdout_rows], layers[-1])
            test_classes = _predict(group, test.values, layers[-1])
            for setting, on_holdout, on_test in zip(group.settings, holdout_classes, test_classes, strict=True):
                holdout = (on_holdout == labels).float().mean().item()
                result = accuracy(on_test, test.labels[group.label_set])
                scores[group.label_set].append(HeadScore(holdout, setting, result))
        results = {}
        for name, heads in scores.items():
            best = max(heads, key=lambda head: head.holdout)
            listed = [{**h.setting._asdict(), "holdout": h.holdout, "test": h.test.value} for h in heads]
            results[name] = TaskResult({self.spec.name: best.test}, {"chosen": best.setting._asdict(), "heads": listed})
        return results

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The accuracy of the chosen head."""
        return [self.spec]

    def validate(self, data: DataModule) -> None:
        """Raises `missing_labels_error` if the images lack one of the task's label sets."""
        names = label_sets(data)
        for name in self.config.labels or []:
            if name not in names:
                raise self.missing_labels_error(
                    f"{self.key}.labels",
                    self.config.labels,
                    f"the images have no labels {name}; try {', '.join(names)}",
                )


class CountTask(LinearTask):
    """Accuracy of a linear probe that counts objects (Clevr/Count)."""

    name = "count"
    spec = specs.COUNT
    missing_labels_error = UnavailableError  # task=paper skips the task instead of failing


class DistanceTask(LinearTask):
    """Accuracy of a linear probe of the nearest object's distance (Clevr/Dist)."""

    name = "distance"
    spec = specs.DISTANCE
    missing_labels_error = UnavailableError


def _groups(task: Linear, layers: list[int], train: Features, ctx: EvalContext) -> list[HeadGroup]:
    groups = []
    for name, labels in train.labels.items():
        for count, batch_norm in itertools.product(layers, task.batch_norm):
            settings = setting_grid(count, batch_norm, task.lr, task.weight_decay)
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
            groups.append(HeadGroup(name, count, settings, heads.to(ctx.runtime.device)))
    return groups


def _train(task: Linear, data: TrainingData, groups: list[HeadGroup], train_rows: Tensor, title: str) -> None:
    """Trains all heads on ``train_rows``; each image passes the encoder once for all of them."""
    size = augmentation.capped_batch_size(task.batch_size, len(train_rows))
    uncropped = task.crop_scale is None
    ranks = SINGLE_PROCESS if uncropped else data.ctx.runtime.ranks
    batches = augmentation.EpochBatchSampler(data.features.indices[train_rows], size, task.epochs, data.ctx.seed, ranks)
    feature_batches = (_cached_features if uncropped else _augmented_features)(task, data, batches)
    for group in groups:
        group.heads.train()
    for step, (features, rows) in enumerate(progress(feature_batches, data.ctx.title(title), len(batches))):
        factor = batches.size / LR_BATCH_SIZE * _lr_factor(task, step / batches.steps)
        for group in groups:
            labels = data.features.labels[group.label_set][rows].to(features.device)
            inputs = last_layers(features, group.layers, data.layers)
            group.heads.loss(inputs, labels).backward()  # type: ignore[no-untyped-call]
            group.heads.step(factor)
    for group in groups:
        group.heads.eval()


def _augmented_features(task: Linear, data: TrainingData, batches: augmentation.EpochBatchSampler) -> FeatureBatches:
    """Augmented images pass through the encoder; batches are gathered from all devices."""
    ctx, ranks, device = data.ctx, data.ctx.runtime.ranks, data.ctx.runtime.device
    row_of = augmentation.row_by_index(data.features, len(ctx.data.source.train))
    augment = augmentation.Augment(task.crop_scale, task.flip, ctx.data.eval_transform)
    embed = data.model.embed(ctx.runtime, data.layers)
    for images, indices in augmentation.loader(ctx, augment, batches, ctx.seed):
        with torch.no_grad():
            features = ranks.gathered(embed(images.to(device, non_blocking=True)))
        yield features, row_of[ranks.gathered(indices)]


def _cached_features(task: Linear, data: TrainingData, batches: augmentation.EpochBatchSampler) -> FeatureBatches:
    """The features of whole images, half of them mirrored with ``task.flip``; extracted once, not every epoch."""
    ctx, values = data.ctx, data.features.values
    row_of = augmentation.row_by_index(data.features, len(ctx.data.source.train))
    mirrored = ctx.mirrored_features(data.model, data.layers, FEATURE_BATCH_SIZE) if task.flip else values
    for batch in batches:
        indices = torch.tensor([sample.image for sample in batch])
        rows = row_of[indices]
        is_mirrored = augmentation.flipped(ctx.seed, batch[0].epoch, indices)[:, None] & task.flip
        yield torch.where(is_mirrored, mirrored[rows], values[rows]).to(ctx.runtime.device), rows


def _lr_factor(task: Linear, epoch: float) -> float:
    """Factor of the learning rate after ``epoch`` epochs."""
    if task.milestones is not None:
        return float(0.1 ** sum(epoch >= milestone for milestone in task.milestones))
    return float(task.lr_end + (1 - task.lr_end) * (1 + math.cos(math.pi * epoch / task.epochs)) / 2)


@torch.no_grad()
def _predict(group: HeadGroup, values: Tensor, layers: int) -> Tensor:
    """Each head's predicted class of each row of ``values`` [n, D * layers]: [H, n]."""
    device = group.heads.weight.device
    chunks = last_layers(values, group.layers, layers).split(CHUNK)
    return torch.cat([group.heads(chunk.to(device)).argmax(dim=2).cpu() for chunk in chunks], dim=1)
