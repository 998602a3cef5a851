"""Dense probes: a linear layer on each patch's frozen features, its outputs bilinearly upsampled to the image.

Like the linear probes of BEiT and DINOv2 (2304.07193): batch norm, a 1x1 layer, and cross-entropy (segmentation) or a
scale-invariant loss (depth) at full resolution. Many heads are trained at once; the best is chosen on held-out images.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Dense
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import evenly_spaced
from ijepa.data.sets import Images
from ijepa.distributed.ranks import SINGLE_PROCESS
from ijepa.evaluation import augmentation, dense_data, specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import last_layers
from ijepa.evaluation.heads import Setting, setting_grid
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.pixelheads import Grid, PixelHeads, upsample
from ijepa.evaluation.progress import progress
from ijepa.evaluation.targets import ClassTarget, DepthTarget, Target
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.interop.dense import DenseDescription, DensePredictor, write_dense
from ijepa.util.errors import UserError
from ijepa.util.randomness import Stream, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES = 4096
"""Maps with higher indices contain something other than classes, such as object IDs."""


class PixelHeadGroup(NamedTuple):
    """Heads that share their input features."""

    layers: int
    settings: list[Setting]
    heads: PixelHeads


class DenseProbe(NamedTuple):
    """Trained heads.

    embed: from images [B, C, H, W] to patch features [B, N, D * layers] of the last ``layers`` blocks.
    """

    embed: Callable[[Tensor], Tensor]
    layers: int
    patch_size: int
    groups: list[PixelHeadGroup]


class Trial(NamedTuple):
    """A head: its results on held-out training images, and each validation image's contribution [n, S]."""

    group: PixelHeadGroup
    head: int
    holdout: dict[str, MetricValue]
    outcomes: Tensor

    @property
    def setting(self) -> Setting:
        return self.group.settings[self.head]


class DenseTask(ConfiguredTask[Dense]):
    """A linear probe that predicts a value for every pixel."""

    needs_labels = False
    specs: tuple[MetricSpec, ...]
    draw: Callable[[Tensor, Tensor, Tensor], "Figure"]
    """From images, maps and predictions to a figure."""
    trained: tuple[Trial, dict[str, float]] | None = None
    """The best head of the model that was evaluated last, and its results on validation images."""

    def target(self, ctx: EvalContext) -> Target:
        """The kind of map to predict."""
        raise NotImplementedError

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """Results of the head that is best on held-out training images, by RMSE or mIoU; all heads in the details."""
        target, source = self.target(ctx), ctx.data.source
        holdout_indices, train_indices = augmentation.hold_out(self.config.holdout, len(source.train), ctx.seed)
        probe = _train(self.config, target, model, ctx, train_indices)
        holdout = _outcomes(self.config, target, probe, ctx, source.train, holdout_indices.tolist())
        val_indices = list(range(len(source.val)))
        test = _outcomes(self.config, target, probe, ctx, source.val, val_indices, f"{model.name}: {target.kind}")
        trials = [
            Trial(group, head, target.results(on_holdout[head]), on_test[head])
            for group, on_holdout, on_test in zip(probe.groups, holdout, test, strict=True)
            for head in range(len(group.settings))
        ]
        best = max(trials, key=lambda trial: target.selection_score(trial.holdout))
        listed = []
        for trial in trials:
            scores = {"holdout": trial.holdout, "test": target.results(trial.outcomes)}
            values = {f"{split}_{name}": _finite(m.value) for split, ms in scores.items() for name, m in ms.items()}
            listed.append({**trial.setting._asdict(), **values})
        details: dict[str, Any] = {"chosen": best.setting._asdict(), "images": len(best.outcomes), "heads": listed}
        details["left_out"] = list(dense_data.unreadable(ctx, target.kind))
        if isinstance(target, ClassTarget):
            details["iou"] = [_finite(iou) for iou in target.iou(best.outcomes.sum(dim=0, keepdim=True))[0].tolist()]
        if ctx.folder is not None:
            ctx.scratch[f"{target.kind} {model.name}"] = _examples(self.config, target, probe, best, ctx)
        results = target.results(best.outcomes)
        self.trained = best, {name: result.value for name, result in results.items()}
        return {"": TaskResult(results, details)}

    def metrics(self, several: bool) -> list[MetricSpec]:
        """Both metrics of the target."""
        return list(self.specs)

    def validate(self, data: DataModule) -> None:
        """Raises UnavailableError if the images have no maps of this kind."""
        dense_data.validate(self.name, data)

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Draws image, map and prediction of some validation images, evenly spaced; writes the head of the encoder."""
        images, maps, predicted = ctx.scratch[f"{self.name} {model.name}"]
        written = self._write_head(model, ctx, folder)
        if not len(images):
            return written
        path = folder / f"{self.name}-{model.name.replace(' ', '-')}.png"
        pictures.write(self.draw(images, maps, predicted), path)
        return [path, *written]

    def _write_head(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        if model.baseline or model.encoder is None or not ctx.write_models or self.trained is None:
            return []
        trial, results = self.trained
        transform, path = ctx.data.eval_transform, folder / f"{self.name}.safetensors"
        facts = {"task": self.name, "chosen": trial.setting._asdict(),
                 "validation": {name: _finite(value) for name, value in results.items()}}  # fmt: skip
        description = DenseDescription(
            self.target(ctx).kind, transform.size, transform.crop, transform.stretch, trial.group.layers,
            ctx.max_pixels, facts, ctx.max_deviations,
        )  # fmt: skip
        head = trial.group.heads.linear(trial.head)
        if not all(parameter.isfinite().all() for parameter in head.parameters()):
            print(f"{self.name:<8} the head is not written: its training has diverged")
            return []
        predictor = DensePredictor(model.encoder, head, description, ctx.encoder)
        try:
            write_dense(path, predictor)
        except OSError as error:  # a full disk must not end the evaluation
            print(f"{self.name:<8} the head is not written: {path}: {error.strerror}")
            return []
        return [path]


class DepthTask(DenseTask):
    """Predicts the depth of every pixel."""

    name = "depth"
    specs = specs.DEPTH
    draw = staticmethod(pictures.depths)

    def target(self, ctx: EvalContext) -> Target:
        return DepthTarget()


class SegmentationTask(DenseTask):
    """Predicts the class of every pixel."""

    name = "segmentation"
    specs = specs.SEGMENTATION
    draw = staticmethod(pictures.classes)

    def target(self, ctx: EvalContext) -> Target:
        if "classes" not in ctx.scratch:  # the same for all models
            ctx.scratch["classes"] = dense_data.count_classes(ctx, self.config.batch_size)
        classes = ctx.scratch["classes"]
        if classes > MAX_CLASSES:
            problem = f"use class indices up to {MAX_CLASSES - 1}"
            raise UserError(f"segmentation maps contain values up to {classes - 1}; {problem}")
        return ClassTarget(max(classes, 1))


def _train(config: Dense, target: Target, model: EvaluatedModel, ctx: EvalContext, indices: Tensor) -> DenseProbe:
    """Trains on the training images ``indices``; each image passes the encoder once for all heads."""
    layers = sorted({1 if model.encoder is None else count for count in config.layers})
    embed = model.embed_patches(ctx.runtime, layers[-1])
    probe = DenseProbe(embed, layers[-1], model.patch_size, [])
    size = augmentation.capped_batch_size(config.batch_size, len(indices))
    epochs = max(config.epochs, math.ceil(config.min_steps / max(len(indices) // size, 1)))
    # Heads are quick to train, so every device trains the same ones on all images.
    batches = augmentation.EpochBatchSampler(indices, size, epochs, ctx.seed, SINGLE_PROCESS)
    loader = dense_data.train_loader(ctx, target.kind, batches)
    title = ctx.title(f"{model.name}: {target.kind} probe")
    for step, batch in enumerate(progress(loader, title, len(batches))):
        images, maps = dense_data.readable(ctx, target.kind, *batch)
        if not len(images):
            continue
        with torch.no_grad():
            features = embed(images)
        if not probe.groups:
            probe.groups.extend(_groups(config, target, layers, features.shape[2], maps, ctx))
        factor = (1 + math.cos(math.pi * step / len(batches))) / 2
        for group in probe.groups:
            inputs = _last_layers(features, group.layers, layers[-1])
            group.heads.backward(target, inputs, _grid(images, probe.patch_size), maps)
            group.heads.step(factor)
    if not probe.groups:
        raise _no_maps_error(target, "training")
    for group in probe.groups:
        group.heads.eval()
    return probe


def _groups(
    config: Dense, target: Target, layers: list[int], width: int, maps: Tensor, ctx: EvalContext
) -> list[PixelHeadGroup]:
    """Heads on features [.., ``width``]; their initial biases are those that `Target.start` computes from ``maps``."""
    groups, start = [], target.start(maps)
    for count, batch_norm in itertools.product(layers, config.batch_norm):
        settings = setting_grid(count, batch_norm, config.lr, config.weight_decay)
        rates, decays = [setting.lr for setting in settings], [setting.weight_decay for setting in settings]
        generator = torch.Generator().manual_seed(seed_of(ctx.seed, Stream.DENSE_INIT, 0, 0))
        heads = PixelHeads(width // layers[-1] * count, start, rates, decays, batch_norm, generator)
        groups.append(PixelHeadGroup(count, settings, heads))
    return groups


@torch.no_grad()
def _outcomes(
    config: Dense,
    target: Target,
    probe: DenseProbe,
    ctx: EvalContext,
    images: Images,
    indices: list[int],
    title: str = "",
) -> list[Tensor]:
    """For each group, the contribution of each readable image to the results of each head: [H, n, S]."""
    loader = dense_data.eval_loader(ctx, target.kind, images, indices, config.batch_size)
    batches: list[list[Tensor]] = [[] for _ in probe.groups]
    for batch in progress(loader, ctx.title(title) if title else "", len(loader)):
        inputs, maps = dense_data.readable(ctx, target.kind, *batch)
        if not len(inputs):
            continue
        features = probe.embed(inputs)
        for group, rows in zip(probe.groups, batches, strict=True):
            patches = group.heads(_last_layers(features, group.layers, probe.layers))
            grid = _grid(inputs, probe.patch_size)
            rows.append(torch.stack([target.outcomes(upsample(outputs, grid, maps), maps) for outputs in patches]))
    if not batches[0]:
        raise _no_maps_error(target, "validation" if images is ctx.data.source.val else "held-out training")
    return [torch.cat(rows, dim=1) for rows in batches]


@torch.no_grad()
def _examples(
    config: Dense, target: Target, probe: DenseProbe, trial: Trial, ctx: EvalContext
) -> tuple[Tensor, Tensor, Tensor]:
    """Some validation images [B, C, H, W], their maps and a head's predictions [B, H, W], on the CPU."""
    val = ctx.data.source.val
    indices = evenly_spaced(len(val), config.examples)
    batch = next(iter(dense_data.eval_loader(ctx, target.kind, val, indices, len(indices))))
    images, maps = dense_data.readable(ctx, target.kind, *batch)
    if not len(images):
        return images, maps, maps
    patches = trial.group.heads(_last_layers(probe.embed(images), trial.group.layers, probe.layers))[trial.head]
    values = target.values(upsample(patches, _grid(images, probe.patch_size), maps))
    return images.cpu(), maps.cpu(), values.cpu()


def _last_layers(features: Tensor, layers: int, total: int) -> Tensor:
    """`last_layers` of patch features [B, N, D * total]: [B, N, D * layers]."""
    return last_layers(features.flatten(0, 1), layers, total).unflatten(0, features.shape[:2])


def _grid(images: Tensor, patch_size: int) -> Grid:
    return images.shape[-2] // patch_size, images.shape[-1] // patch_size


def _finite(value: float) -> float | None:
    """The value for JSON; None if not finite: the head has diverged, or the class does not occur."""
    return value if math.isfinite(value) else None


def _no_maps_error(target: Target, split: str) -> UserError:
    return UserError(f"no {split} image has a readable {target.kind} map; see the messages above")
