"""Fine-tuning: the whole encoder is trained on labels, with one linear head per label set, all together.

The paper follows the usual protocol: AdamW, layer-wise learning rate decay, mixup, CutMix, stochastic depth and
RandAugment. From random init it is the fully supervised baseline.
"""

from typing import NamedTuple

import torch
from PIL import Image
from timm.data import Mixup
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from ijepa.config import Finetune, Tuning
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import UnreadableError
from ijepa.evaluation import augmentation, specs
from ijepa.evaluation.cache import features
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.interop import timm
from ijepa.models.classifier import Classifier
from ijepa.training import curves
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import Stream, seed_of, seeded

TRIED = 10
"""Images that are looked at before a training begins."""


class Tuned(NamedTuple):
    """A fine-tuned network, and its accuracy on the validation images by label set."""

    network: Classifier
    results: dict[str, Measured]


class FinetuneTask(ConfiguredTask[Finetune]):
    """Accuracy after fine-tuning."""

    name = "finetune"

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy on the validation images after the last epoch; pixels have nothing to train."""
        if evaluated.encoder is None:
            return {}
        train, test = ctx.features(evaluated, 1, self.config.batch_size)
        names = self.config.labels or list(train.labels)
        chosen = torch.arange(len(train.values))
        tuned = tune(self.config, evaluated, ctx, train.only(names), test, chosen, f"{evaluated.name}: fine-tuning")
        if ctx.folder is not None:
            path = ctx.folder / f"finetuned-{evaluated.name.replace(' ', '-')}.safetensors"
            encoder = tuned.network.pretrained
            timm.write(path, encoder.encoder, encoder.spec, "target", dict(tuned.network.heads.items()))
            ctx.files.append(path)
        return {name: TaskResult({specs.FINETUNE.name: result}) for name, result in tuned.results.items()}

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One."""
        return [specs.FINETUNE]

    def validate(self, data: DataModule) -> None:
        """Refuses what `refuse_tuning` does."""
        refuse_tuning(self.config, data, self.key)


def refuse_tuning(task: Tuning, data: DataModule, key: str) -> None:
    """Rejects unknown label sets, and RandAugment settings that timm or the images do not support.

    Raises:
        ConfigError: names what to try.
    """
    names = label_sets(data)
    for name in task.labels or []:
        if name not in names:
            problem = f"the images have no labels {name}; try {', '.join(names)}"
            raise ConfigError(f"{key}.labels", task.labels, problem)
    if task.randaugment is None:
        return
    if data.channels not in augmentation.PICTURES:
        problem = f"supports 1 or 3 channels, not {data.channels}; try {key}.randaugment=null"
        raise ConfigError(f"{key}.randaugment", task.randaugment, problem)
    if not _pictures(data):
        problem = f"supports 8-bit pictures only; try {key}.randaugment=null"
        raise ConfigError(f"{key}.randaugment", task.randaugment, problem)
    try:
        augmentation.distortion(task.randaugment, data.eval_transform.size)
    except Exception:  # timm asserts, or fails at int()
        raise ConfigError(
            f"{key}.randaugment", task.randaugment, "should look like rand-m9-mstd0.5-inc1, or be null"
        ) from None


def _pictures(data: DataModule) -> bool:
    """Whether the first readable training image is one of 8 bits a value; true where none can be read yet."""
    images = data.source.train
    for index in range(min(len(images), TRIED)):
        try:
            return isinstance(images.read(index), Image.Image)
        except (UnreadableError, OSError):  # rendered scenes may not be there yet
            continue
    return True


def tune(
    task: Tuning, evaluated: EvaluatedModel, ctx: EvalContext, train: Features, test: Features, chosen: Tensor,
    title: str, draw: int = 0,
) -> Tuned:  # fmt: skip
    """Trains a copy of the model's encoder.

    Args:
        task: the settings.
        evaluated: whose encoder.
        ctx: data, device and seed.
        train: labels and indices of the training images.
        test: those of the validation images.
        chosen: rows of ``train`` that are trained on.
        title: of the progress bar.
        draw: another one gives other heads, orders and augmentations.
    """
    assert evaluated.encoder is not None
    device, seed = ctx.runtime.device, seed_of(ctx.seed, Stream.FINETUNE_INIT, 0, draw)
    classes = {name: int(labels.max()) + 1 for name, labels in train.labels.items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            network = Classifier(evaluated.encoder, classes, task.drop_path).to(device)
        except ValueError as fault:
            key = f"task.{'finetune' if isinstance(task, Finetune) else 'lowshot_finetune'}.drop_path"
            raise ConfigError(key, task.drop_path, f"{fault}; try 0") from None
        torch.manual_seed(seed_of(seed, Stream.FINETUNE_INIT, 1, ctx.runtime.ranks.rank))  # of stochastic depth
        _train(task, network, ctx, train, chosen, seed, ctx.title(title))
    network.eval()
    embed = ctx.runtime.pooled(network.pretrained)
    pooled, _ = features(embed, ctx.data.source.val, ctx.data, task.batch_size, ctx.runtime, None, "")
    results = {}
    with torch.inference_mode():
        for name, head in network.heads.items():
            results[name] = accuracy(head(pooled.to(device)).argmax(dim=1).cpu(), test.labels[name])
    return Tuned(network, results)


def optimizer_of(task: Tuning, network: nn.Module) -> AdamW:
    """AdamW whose groups have an ``lr_scale``: layer_decay to the power of the layers that follow."""
    groups = param_groups_layer_decay(network, task.weight_decay, layer_decay=task.layer_decay)
    return AdamW(groups, lr=task.lr)


def _train(
    task: Tuning, network: Classifier, ctx: EvalContext, train: Features, chosen: Tensor, seed: int,
    title: str,
) -> None:  # fmt: skip
    device = ctx.runtime.device
    ranks = ctx.runtime.ranks
    pairs = 2 * ranks.world_size  # which mixup makes, on each device
    size = max(augmentation.size_of(task.batch_size, len(chosen)) // pairs, 1) * pairs
    batches = augmentation.EpochBatchSampler(train.indices[chosen], size, task.epochs, seed, ranks)
    rows = augmentation.rows_of(train, len(ctx.data.source.train))
    plain = ctx.data.eval_transform
    loader = augmentation.loader(
        ctx, augmentation.Augment(task.crop_scale, task.flip, plain, task.randaugment), batches, seed
    )
    optimizer = optimizer_of(task, network)
    peak = augmentation.rate_of(task.lr, size, task.batch_size)
    network.train()
    for step, (images, indices) in enumerate(progress(loader, title, len(batches))):
        rate = curves.warmup(
            "cosine", 0, peak, peak * task.lr_end, step, task.warmup_epochs * batches.steps, len(batches)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        mixed, weights = mix(task, images, seed_of(seed, Stream.MIXUP, step, ranks.rank))
        mixed, weights = mixed.to(device, non_blocking=True), weights.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=ctx.runtime.bf16):
            logits = network(mixed)
        loss = torch.zeros((), device=device)
        for name, theirs in logits.items():
            labels = train.labels[name][rows[indices]].to(device)
            targets = weights @ smoothed(labels, theirs.shape[1], task.label_smoothing)
            loss = loss + F.cross_entropy(theirs.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(network.parameters())
        optimizer.step()


def mix(task: Tuning, images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix, one or the other at random; which images are in which, and how much: [B, C, H, W], [B, B]."""
    each = torch.arange(len(images))
    if not task.mixup and not task.cutmix:
        return images, torch.eye(len(images))
    mixup = Mixup(task.mixup, task.cutmix, label_smoothing=0, num_classes=len(images))
    with seeded(seed):
        mixed, weights = mixup(images.clone(), each)
    return mixed, weights


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """What is to be predicted: [B, K], a share ``smoothing`` of it spread over all classes."""
    return F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
