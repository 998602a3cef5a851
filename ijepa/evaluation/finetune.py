"""Fine-tuning: the whole encoder is trained on labels, with a linear head for each label set, all at once.

The paper follows the usual protocol: AdamW, layer-wise learning rate decay, mixup, CutMix, stochastic depth and
RandAugment. Started from random init, it is the supervised baseline.
"""

from typing import NamedTuple, cast

import torch
from PIL import Image
from timm.data import Mixup
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from ijepa.config import Finetune, Tuning
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Images, Subset, UnreadableError
from ijepa.evaluation import augmentation, calibration, specs
from ijepa.evaluation.cache import cached_features
from ijepa.evaluation.classifiers import ClassifierTask, Trained
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import MetricValue, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import MetricSpec
from ijepa.interop import timm
from ijepa.interop.classifier import Head
from ijepa.models.classifier import Classifier
from ijepa.training import curves
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import Stream, seed_of, seeded

MAX_TRIED = 10
"""Training images to try to read before training, to learn their type."""


class TunedModel(NamedTuple):
    """A fine-tuned network, and its logits [n, K] and accuracy on the validation images by label set."""

    network: Classifier
    logits: dict[str, Tensor]
    results: dict[str, MetricValue]


class FinetuneTask(ClassifierTask[Finetune]):
    """Accuracy after fine-tuning."""

    name = "finetune"

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy on the validation images after the last epoch. Raw pixels are skipped."""
        if model.encoder is None:
            return {}
        train, test = ctx.features(model, 1, self.config.batch_size)
        names = [name for name in self.config.labels or train.labels if name in train.labels]
        train = train.select_labels(names)
        count = len(train.values)
        holdout_rows, rows = torch.empty(0, dtype=torch.int64), torch.arange(count)
        if round(self.config.holdout * count) >= calibration.MIN_IMAGES:
            holdout_rows, rows = augmentation.hold_out(self.config.holdout, count, ctx.seed)
        tuned = tune(self.config, model, ctx, train, test, rows, f"{model.name}: fine-tuning")
        held_out = Subset(ctx.data.source.train, train.indices[holdout_rows].tolist())
        known = logits(tuned.network, held_out, ctx, self.config.batch_size) if len(held_out) else {}
        temperatures = {
            name: calibration.temperature(known[name], train.labels[name][holdout_rows]) if known else None
            for name in tuned.results
        }
        heads = cast(dict[str, Head], dict(tuned.network.heads.items()))
        self.trained = Trained(heads, temperatures, 1, {"images": len(rows)}, tuned.network.pretrained)
        if ctx.folder is not None and ctx.write_models:
            path = ctx.folder / f"finetuned-{model.name.replace(' ', '-')}{ctx.file_suffix}.safetensors"
            encoder = tuned.network.pretrained
            timm.write(path, encoder.encoder, encoder.spec, "target", dict(tuned.network.heads.items()))
            ctx.files.append(path)
        found = {}
        for name, result in tuned.results.items():
            details = calibration.details(tuned.logits[name], test.labels[name], temperatures[name])
            self.trained.record(name, result, len(tuned.logits[name]), details)
            found[name] = TaskResult({specs.FINETUNE.name: result}, details or None)
        return found

    @property
    def uncalibrated(self) -> str:
        """Why there is no temperature."""
        return f"{self.key}.holdout={self.config.holdout:g} holds out fewer than {calibration.MIN_IMAGES} images"

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The accuracy."""
        return [specs.FINETUNE]

    def validate(self, data: DataModule) -> None:
        """See `validate_tuning`."""
        validate_tuning(self.config, data, self.key)


def validate_tuning(config: Tuning, data: DataModule, key: str) -> None:
    """Rejects unknown label sets, and RandAugment settings that timm or the images do not support.

    Raises:
        ConfigError: with what to try instead.
    """
    names = label_sets(data)
    for name in config.labels or []:
        if name not in names:
            problem = f"the images have no labels {name}; try {', '.join(names)}"
            raise ConfigError(f"{key}.labels", config.labels, problem)
    if config.randaugment is None:
        return
    if data.channels not in augmentation.PIL_MODES:
        problem = f"supports 1 or 3 channels, not {data.channels}; try {key}.randaugment=null"
        raise ConfigError(f"{key}.randaugment", config.randaugment, problem)
    if not _are_8_bit(data):
        problem = f"supports 8-bit pictures only; try {key}.randaugment=null"
        raise ConfigError(f"{key}.randaugment", config.randaugment, problem)
    try:
        augmentation.randaugment_transform(config.randaugment, data.eval_transform.size)
    except Exception:  # timm asserts, or fails at int()
        raise ConfigError(
            f"{key}.randaugment", config.randaugment, "should look like rand-m9-mstd0.5-inc1, or be null"
        ) from None


def _are_8_bit(data: DataModule) -> bool:
    """Whether the first readable training image has 8 bits per channel; true if none can be read yet."""
    images = data.source.train
    for index in range(min(len(images), MAX_TRIED)):
        try:
            return isinstance(images.read(index), Image.Image)
        except (UnreadableError, OSError):  # scenes may not be rendered yet
            continue
    return True


def tune(
    config: Tuning, model: EvaluatedModel, ctx: EvalContext, train: Features, test: Features, rows: Tensor,
    title: str, draw: int = 0,
) -> TunedModel:  # fmt: skip
    """Fine-tunes a copy of the model's encoder.

    Args:
        config: hyperparameters.
        model: has an encoder.
        ctx: data, device and seed.
        train: labels and indices of the training images; its features are not used.
        test: the same of the validation images.
        rows: rows of ``train`` to train on.
        title: of the progress bar.
        draw: number that varies the initial heads, the order of images and the augmentation.

    Raises:
        ConfigError: if the encoder does not support ``drop_path``.
    """
    assert model.encoder is not None
    device, seed = ctx.runtime.device, seed_of(ctx.seed, Stream.FINETUNE_INIT, 0, draw)
    classes = {name: int(labels.max()) + 1 for name, labels in train.labels.items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            network = Classifier(model.encoder, classes, config.drop_path).to(device)
        except ValueError as error:
            key = f"task.{'finetune' if isinstance(config, Finetune) else 'lowshot_finetune'}.drop_path"
            raise ConfigError(key, config.drop_path, f"{error}; try 0") from None
        torch.manual_seed(seed_of(seed, Stream.FINETUNE_INIT, 1, ctx.runtime.ranks.rank))  # for stochastic depth
        _train(config, network, ctx, train, rows, seed, ctx.title(title))
    network.eval()
    found = logits(network, ctx.data.source.val, ctx, config.batch_size)
    results = {name: accuracy(values.argmax(dim=1), test.labels[name]) for name, values in found.items()}
    return TunedModel(network, found, results)


@torch.inference_mode()
def logits(network: Classifier, images: Images, ctx: EvalContext, batch_size: int) -> dict[str, Tensor]:
    """Logits [n, K] of the readable ones among ``images``, by label set."""
    embed = ctx.runtime.pooled(network.pretrained)
    pooled, _ = cached_features(embed, images, ctx.data, batch_size, ctx.runtime, None, "")
    pooled = pooled.to(ctx.runtime.device)
    return {name: head(pooled).cpu() for name, head in network.heads.items()}


def build_optimizer(config: Tuning, network: nn.Module) -> AdamW:
    """AdamW whose parameter groups have an ``lr_scale``: ``layer_decay`` to the power of the number of later layers."""
    groups = param_groups_layer_decay(network, config.weight_decay, layer_decay=config.layer_decay)
    return AdamW(groups, lr=config.lr)


def _train(
    config: Tuning, network: Classifier, ctx: EvalContext, train: Features, rows: Tensor, seed: int,
    title: str,
) -> None:  # fmt: skip
    device = ctx.runtime.device
    ranks = ctx.runtime.ranks
    multiple = 2 * ranks.world_size  # mixup needs an even number of images on each device
    size = max(augmentation.capped_batch_size(config.batch_size, len(rows)) // multiple, 1) * multiple
    batches = augmentation.EpochBatchSampler(train.indices[rows], size, config.epochs, seed, ranks)
    row_of = augmentation.row_by_index(train, len(ctx.data.source.train))
    augment = augmentation.Augment(config.crop_scale, config.flip, ctx.data.eval_transform, config.randaugment)
    loader = augmentation.loader(ctx, augment, batches, seed)
    optimizer = build_optimizer(config, network)
    peak = augmentation.scaled_lr(config.lr, size, config.batch_size)
    network.train()
    for step, (images, indices) in enumerate(progress(loader, title, len(batches))):
        lr = curves.warmup(
            "cosine", 0, peak, peak * config.lr_end, step, config.warmup_epochs * batches.steps, len(batches)
        )
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        mixed, weights = mix(config, images, seed_of(seed, Stream.MIXUP, step, ranks.rank))
        mixed, weights = mixed.to(device, non_blocking=True), weights.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=ctx.runtime.bf16):
            predicted = network(mixed)
        loss = torch.zeros((), device=device)
        for name, label_set_logits in predicted.items():
            labels = train.labels[name][row_of[indices]].to(device)
            targets = weights @ smoothed_targets(labels, label_set_logits.shape[1], config.label_smoothing)
            loss = loss + F.cross_entropy(label_set_logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(network.parameters())
        optimizer.step()


def mix(config: Tuning, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix, chosen at random, of images [B, C, H, W].

    Returns:
        The mixed images [B, C, H, W], and the weight of each original image in each: [B, B].
    """
    indices = torch.arange(len(images))
    if not config.mixup and not config.cutmix:
        return images, torch.eye(len(images))
    mixup = Mixup(config.mixup, config.cutmix, label_smoothing=0, num_classes=len(images))
    with seeded(seed):
        mixed, weights = mixup(images.clone(), indices)
    return mixed, weights


def smoothed_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Targets with label smoothing: [B, K] probabilities."""
    return F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
