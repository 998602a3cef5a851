"""Dense probes: a linear layer on each patch's frozen features, its predictions bilinearly upsampled to the image.

As the linear probes of BEiT and DINOv2 (2304.07193) for segmentation and depth: batch norm, a 1x1 layer, cross-entropy
or a scale-invariant loss at full image size. Many heads are trained at once; the best is chosen on held-out images.
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
from ijepa.distributed.ranks import ALONE
from ijepa.evaluation import augmentation, dense_data, specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import of_last
from ijepa.evaluation.heads import Setting, settings_of
from ijepa.evaluation.measures import Measured
from ijepa.evaluation.pixelheads import Grid, PixelHeads, upsampled
from ijepa.evaluation.progress import progress
from ijepa.evaluation.targets import Classes, Depths, Target
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import UserError
from ijepa.util.randomness import Stream, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 4096
"""Maximum number of classes; maps with higher indices contain something else, such as object IDs."""


class HeadGroup(NamedTuple):
    """Heads that see the same features."""

    layers: int
    settings: list[Setting]
    heads: PixelHeads


class Probe(NamedTuple):
    """Heads on features of the last ``layers`` blocks, from images [B, C, H, W] to [B, N, D * layers]."""

    embed: Callable[[Tensor], Tensor]
    layers: int
    patch_size: int
    groups: list[HeadGroup]


class Trial(NamedTuple):
    """A head and what it has shown: results on held-out training images, and what each validation image contributes."""

    group: HeadGroup
    head: int
    held: dict[str, Measured]
    outcomes: Tensor

    @property
    def setting(self) -> Setting:
        return self.group.settings[self.head]


class DenseTask(ConfiguredTask[Dense]):
    """A probe of every pixel."""

    needs_labels = False
    specs: tuple[MetricSpec, ...]
    draw: Callable[[Tensor, Tensor, Tensor], "Figure"]
    """From images, maps and predictions to a picture."""

    def target(self, ctx: EvalContext) -> Target:
        """What is predicted."""
        raise NotImplementedError

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """Of the head that is best on held-out training images, by RMSE or mIoU; all heads in the details."""
        target, source = self.target(ctx), ctx.data.source
        held, kept = augmentation.hold_out(self.config.holdout, len(source.train), ctx.seed)
        probe = _train(self.config, target, evaluated, ctx, kept)
        judged = _outcomes(self.config, target, probe, ctx, source.train, held.tolist())
        everything = list(range(len(source.val)))
        tested = _outcomes(self.config, target, probe, ctx, source.val, everything, f"{evaluated.name}: {target.kind}")
        trials = [
            Trial(group, head, target.results(theirs[head]), found[head])
            for group, theirs, found in zip(probe.groups, judged, tested, strict=True)
            for head in range(len(group.settings))
        ]
        best = max(trials, key=lambda trial: target.merit(trial.held))
        listed = []
        for trial in trials:
            scores = {"holdout": trial.held, "test": target.results(trial.outcomes)}
            values = {f"{part}_{name}": _finite(m.value) for part, found in scores.items() for name, m in found.items()}
            listed.append({**trial.setting._asdict(), **values})
        details: dict[str, Any] = {"chosen": best.setting._asdict(), "images": len(best.outcomes), "heads": listed}
        details["left_out"] = list(dense_data.left_out(ctx, target.kind))
        if isinstance(target, Classes):
            details["iou"] = [_finite(iou) for iou in target.iou(best.outcomes.sum(dim=0, keepdim=True))[0].tolist()]
        if ctx.folder is not None:
            ctx.kept[f"{target.kind} {evaluated.name}"] = _examples(self.config, target, probe, best, ctx)
        return {"": TaskResult(target.results(best.outcomes), details)}

    def metrics(self, several: bool) -> list[MetricSpec]:
        """Two."""
        return list(self.specs)

    def validate(self, data: DataModule) -> None:
        """Refuses images without maps."""
        dense_data.validate(self.name, data)

    def write(self, evaluated: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """The picture: image, map and prediction of some validation images, evenly spread."""
        images, maps, predicted = ctx.kept[f"{self.name} {evaluated.name}"]
        if not len(images):
            return []
        path = folder / f"{self.name}-{evaluated.name.replace(' ', '-')}.png"
        pictures.write(self.draw(images, maps, predicted), path)
        return [path]


class DepthTask(DenseTask):
    """Depth of every pixel."""

    name = "depth"
    specs = specs.DEPTH
    draw = staticmethod(pictures.depths)

    def target(self, ctx: EvalContext) -> Target:
        return Depths()


class SegmentationTask(DenseTask):
    """The class of every pixel."""

    name = "segmentation"
    specs = specs.SEGMENTATION
    draw = staticmethod(pictures.classes)

    def target(self, ctx: EvalContext) -> Target:
        if "classes" not in ctx.kept:  # the same for all subjects
            ctx.kept["classes"] = dense_data.classes(ctx, self.config.batch_size)
        found = ctx.kept["classes"]
        if found > MOST:
            problem = f"use class indices up to {MOST - 1}"
            raise UserError(f"segmentation maps contain values up to {found - 1}; {problem}")
        return Classes(max(found, 1))


def _train(task: Dense, target: Target, evaluated: EvaluatedModel, ctx: EvalContext, kept: Tensor) -> Probe:
    """Trains on the training images ``kept``; each image goes through the encoder once for all heads."""
    layers = sorted({1 if evaluated.encoder is None else count for count in task.layers})
    embed = evaluated.embed_patches(ctx.runtime, layers[-1])
    probe = Probe(embed, layers[-1], evaluated.patch, [])
    size = augmentation.size_of(task.batch_size, len(kept))
    epochs = max(task.epochs, math.ceil(task.min_steps / max(len(kept) // size, 1)))
    batches = augmentation.EpochBatchSampler(
        kept, size, epochs, ctx.seed, ALONE
    )  # every device the same: heads are quick to train
    loader = dense_data.training(ctx, target.kind, batches)
    title = ctx.title(f"{evaluated.name}: {target.kind} probe")
    for step, batch in enumerate(progress(loader, title, len(batches))):
        images, maps = dense_data.readable(ctx, target.kind, *batch)
        if not len(images):
            continue
        with torch.no_grad():
            features = embed(images)
        if not probe.groups:
            probe.groups.extend(_groups(task, target, layers, features.shape[2], maps, ctx))
        factor = (1 + math.cos(math.pi * step / len(batches))) / 2
        for group in probe.groups:
            theirs = _of_last(features, group.layers, layers[-1])
            group.heads.backward(target, theirs, _grid(images, probe.patch_size), maps)
            group.heads.step(factor)
    if not probe.groups:
        raise _nothing(target, "training")
    for group in probe.groups:
        group.heads.eval()
    return probe


def _groups(
    task: Dense, target: Target, layers: list[int], width: int, maps: Tensor, ctx: EvalContext
) -> list[HeadGroup]:
    """Heads for features of this width; predictions begin where these first maps lie."""
    made, start = [], target.start(maps)
    for count, batch_norm in itertools.product(layers, task.batch_norm):
        settings = settings_of(count, batch_norm, task.lr, task.weight_decay)
        rates, decays = [setting.lr for setting in settings], [setting.weight_decay for setting in settings]
        generator = torch.Generator().manual_seed(seed_of(ctx.seed, Stream.DENSE_INIT, 0, 0))
        heads = PixelHeads(width // layers[-1] * count, start, rates, decays, batch_norm, generator)
        made.append(HeadGroup(count, settings, heads))
    return made


@torch.no_grad()
def _outcomes(
    task: Dense, target: Target, probe: Probe, ctx: EvalContext, images: Images, indices: list[int], title: str = ""
) -> list[Tensor]:
    """By group, what each readable image contributes to the results of each head: [H, n, S]."""
    loader = dense_data.ordered(ctx, target.kind, images, indices, task.batch_size)
    found: list[list[Tensor]] = [[] for _ in probe.groups]
    for batch in progress(loader, ctx.title(title) if title else "", len(loader)):
        shown, maps = dense_data.readable(ctx, target.kind, *batch)
        if not len(shown):
            continue
        features = probe.embed(shown)
        for group, rows in zip(probe.groups, found, strict=True):
            patches = group.heads(_of_last(features, group.layers, probe.layers))
            grid = _grid(shown, probe.patch_size)
            rows.append(torch.stack([target.outcomes(upsampled(each, grid, maps), maps) for each in patches]))
    if not found[0]:
        raise _nothing(target, "validation" if images is ctx.data.source.val else "held-out training")
    return [torch.cat(rows, dim=1) for rows in found]


@torch.no_grad()
def _examples(
    task: Dense, target: Target, probe: Probe, trial: Trial, ctx: EvalContext
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, maps and a head's predictions, of validation images."""
    val = ctx.data.source.val
    shown = evenly_spaced(len(val), task.examples)
    batch = next(iter(dense_data.ordered(ctx, target.kind, val, shown, len(shown))))
    images, maps = dense_data.readable(ctx, target.kind, *batch)
    if not len(images):
        return images, maps, maps
    patches = trial.group.heads(_of_last(probe.embed(images), trial.group.layers, probe.layers))[trial.head]
    values = target.values(upsampled(patches, _grid(images, probe.patch_size), maps))
    return images.cpu(), maps.cpu(), values.cpu()


def _of_last(features: Tensor, layers: int, more: int) -> Tensor:
    """`of_last` of each patch: [B, N, D * layers]."""
    return of_last(features.flatten(0, 1), layers, more).unflatten(0, features.shape[:2])


def _grid(images: Tensor, patch_size: int) -> Grid:
    return images.shape[-2] // patch_size, images.shape[-1] // patch_size


def _finite(value: float) -> float | None:
    """For JSON: None for a head that has diverged, and for a class that does not occur."""
    return value if math.isfinite(value) else None


def _nothing(target: Target, part: str) -> UserError:
    return UserError(f"no {part} image has a readable {target.kind} map; see the messages above")
