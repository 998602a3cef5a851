"""The linear probe: trains many heads together; per step, one batch of frozen features serves every head.

The paper (appendix A.2) takes the best of the last layer or the last four, with or without batch norm, and of several
learning rates and weight decays. Here the best is chosen on held-out training images.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ijepa.config import Linear
from ijepa.data.datamodule import DataModule
from ijepa.distributed.ranks import SINGLE_PROCESS
from ijepa.evaluation import augmentation, calibration, specs
from ijepa.evaluation.classifiers import ClassifierTask, Trained
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features, last_layers
from ijepa.evaluation.heads import Heads, Setting, setting_grid
from ijepa.evaluation.measures import MetricValue, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import MetricSpec
from ijepa.util.errors import ConfigError, UnavailableError
from ijepa.util.randomness import Stream, seed_of

REFERENCE_BATCH_SIZE = 256
"""Learning rates are given for this batch size, and scale linearly with it."""
FEATURE_BATCH_SIZE = 256
"""Images per forward pass when features are extracted."""
PREDICTION_BATCH_SIZE = 4096
"""Images per forward pass of the heads when they predict."""


class HeadGroup(NamedTuple):
    """Heads of one label set that share their input features."""

    label_set: str
    num_layers: int
    settings: list[Setting]
    heads: Heads


class HeadScore(NamedTuple):
    """A head, ``number`` in its group: accuracy on held-out training images, and result on the validation images."""

    holdout: float
    setting: Setting
    val: MetricValue
    group: HeadGroup
    number: int


class TrainingData(NamedTuple):
    """What the heads of one model are trained on.

    features: of whole training images, [n, D * total_layers].
    total_layers: number of blocks in ``features``.
    """

    model: EvaluatedModel
    ctx: EvalContext
    features: Features
    total_layers: int


FeatureBatches = Iterator[tuple[Tensor, Tensor]]
"""Features [B, D * total_layers] on the device, and their images' rows in `TrainingData.features`: [B]."""


class LinearTask(ClassifierTask[Linear]):
    """Accuracy of a linear probe."""

    name = "linear"
    spec = specs.LINEAR
    missing_labels_error: type[ConfigError] = ConfigError
    """Raised if the images lack a label set."""

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy of the head that is best on held-out training images, and details of all."""
        layer_counts = sorted({1 if model.encoder is None else count for count in self.config.layers})
        total_layers = layer_counts[-1]
        train, val = ctx.features(model, total_layers, FEATURE_BATCH_SIZE)
        if self.config.labels:
            train, val = (features.select_labels(self.config.labels) for features in (train, val))
        holdout_rows, train_rows = augmentation.hold_out(self.config.holdout, len(train.values), ctx.seed)
        groups = _groups(self.config, layer_counts, train, ctx)
        data = TrainingData(model, ctx, train, total_layers)
        _train(self.config, data, groups, train_rows, f"{model.name}: {self.name} probe")
        scores: dict[str, list[HeadScore]] = {name: [] for name in train.labels}
        for group in groups:
            labels = train.labels[group.label_set][holdout_rows]
            holdout_classes = _predict(group, train.values[holdout_rows], total_layers)
            val_classes = _predict(group, val.values, total_layers)
            predicted = zip(group.settings, holdout_classes, val_classes, strict=True)
            for number, (setting, on_holdout, on_val) in enumerate(predicted):
                holdout = (on_holdout == labels).float().mean().item()
                result = accuracy(on_val, val.labels[group.label_set])
                scores[group.label_set].append(HeadScore(holdout, setting, result, group, number))
        winners = {name: max(found, key=lambda candidate: candidate.holdout) for name, found in scores.items()}
        layers = max((best.setting.layers for best in winners.values()), default=1)
        width = len(train.values[0]) // total_layers * layers
        results, self.trained = {}, Trained({}, {}, layers, {"images": len(train_rows), "chosen": {}})
        for name, candidates in scores.items():
            best = winners[name]
            chosen = best.setting._asdict()
            head = best.group.heads.head(best.number, width)
            with torch.no_grad():
                on_holdout, on_val = (
                    _logits(head, last_layers(values, layers, total_layers))
                    for values in (train.values[holdout_rows], val.values)
                )
            temperature = calibration.temperature(on_holdout, train.labels[name][holdout_rows])
            self.trained.add(name, head, temperature, chosen)
            # "test": its name in metrics.json
            listed = [{**c.setting._asdict(), "holdout": c.holdout, "test": c.val.value} for c in candidates]
            details = {"chosen": chosen, "heads": listed, **calibration.details(on_val, val.labels[name], temperature)}
            self.trained.record(name, best.val, len(on_val), details)
            results[name] = TaskResult({self.spec.name: best.val}, details)
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


def _groups(config: Linear, layer_counts: list[int], train: Features, ctx: EvalContext) -> list[HeadGroup]:
    groups = []
    for name, labels in train.labels.items():
        for num_layers, batch_norm in itertools.product(layer_counts, config.batch_norm):
            settings = setting_grid(num_layers, batch_norm, config.lr, config.weight_decay)
            heads = Heads(
                train.values.shape[1] // layer_counts[-1] * num_layers,
                int(labels.max()) + 1,
                torch.tensor([setting.lr for setting in settings]),
                torch.tensor([setting.weight_decay for setting in settings]),
                batch_norm,
                config.momentum,
                config.optimizer == "lars",
                torch.Generator().manual_seed(seed_of(ctx.seed, Stream.LINEAR_INIT, 0, 0)),
            )
            groups.append(HeadGroup(name, num_layers, settings, heads.to(ctx.runtime.device)))
    return groups


def _train(config: Linear, data: TrainingData, groups: list[HeadGroup], train_rows: Tensor, title: str) -> None:
    """Trains all heads together on ``train_rows``: per step, one batch of features serves every head.

    With random crops it is computed anew; without, it is looked up.
    """
    size = augmentation.capped_batch_size(config.batch_size, len(train_rows))
    uncropped = config.crop_scale is None
    # cached features are cheap: every process trains the same heads on all of them, without communication
    ranks = SINGLE_PROCESS if uncropped else data.ctx.runtime.ranks
    batches = augmentation.EpochBatchSampler(
        data.features.indices[train_rows], size, config.epochs, data.ctx.seed, ranks
    )
    feature_batches = (_cached_features if uncropped else _augmented_features)(config, data, batches)
    for group in groups:
        group.heads.train()
    for step, (features, rows) in enumerate(progress(feature_batches, data.ctx.title(title), len(batches))):
        lr_scale = batches.size / REFERENCE_BATCH_SIZE * _lr_factor(config, step / batches.steps)
        for group in groups:
            labels = data.features.labels[group.label_set][rows].to(features.device)
            inputs = last_layers(features, group.num_layers, data.total_layers)
            group.heads.loss(inputs, labels).backward()  # type: ignore[no-untyped-call]
            group.heads.step(lr_scale)
    for group in groups:
        group.heads.eval()


def _augmented_features(config: Linear, data: TrainingData, batches: augmentation.EpochBatchSampler) -> FeatureBatches:
    """Augmented images pass through the encoder; batches are gathered from all devices."""
    ctx, ranks, device = data.ctx, data.ctx.runtime.ranks, data.ctx.runtime.device
    row_of = augmentation.row_by_index(data.features, len(ctx.data.source.train))
    augment = augmentation.Augment(config.crop_scale, config.flip, ctx.data.eval_transform)
    embed = data.model.embed(ctx.runtime, data.total_layers)
    for images, indices in augmentation.loader(ctx, augment, batches, ctx.seed):
        with torch.no_grad():
            features = ranks.gathered(embed(images.to(device, non_blocking=True)))
        yield features, row_of[ranks.gathered(indices)]


def _cached_features(config: Linear, data: TrainingData, batches: augmentation.EpochBatchSampler) -> FeatureBatches:
    """The features of whole images, half of them mirrored with ``config.flip``; extracted once, not every epoch."""
    ctx, values = data.ctx, data.features.values
    row_of = augmentation.row_by_index(data.features, len(ctx.data.source.train))
    mirrored = ctx.mirrored_features(data.model, data.total_layers, FEATURE_BATCH_SIZE) if config.flip else values
    for batch in batches:
        indices = torch.tensor([sample.image for sample in batch])
        rows = row_of[indices]
        is_mirrored = augmentation.flipped(ctx.seed, batch[0].epoch, indices)[:, None] & config.flip
        yield torch.where(is_mirrored, mirrored[rows], values[rows]).to(ctx.runtime.device), rows


def _lr_factor(config: Linear, epoch: float) -> float:
    """Schedule: multiplier of the learning rate after ``epoch`` (fractional) epochs."""
    if config.milestones is not None:
        return float(0.1 ** sum(epoch >= milestone for milestone in config.milestones))
    return float(config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * epoch / config.epochs)) / 2)


def _logits(head: nn.Linear, values: Tensor) -> Tensor:
    return torch.cat([head(chunk) for chunk in values.split(PREDICTION_BATCH_SIZE)])


@torch.no_grad()
def _predict(group: HeadGroup, values: Tensor, total_layers: int) -> Tensor:
    """Each head's predicted class of each row of ``values`` [n, D * total_layers]: [H, n]."""
    device = group.heads.weight.device
    chunks = last_layers(values, group.num_layers, total_layers).split(PREDICTION_BATCH_SIZE)
    return torch.cat([group.heads(chunk.to(device)).argmax(dim=2).cpu() for chunk in chunks], dim=1)
