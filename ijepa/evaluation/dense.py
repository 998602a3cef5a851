"""Dense probes: a linear layer on each patch's frozen features, its predictions bilinearly upsampled to the image.

As the linear probes of BEiT and DINOv2 (2304.07193) on segmentation and depth: batch norm, a 1x1 layer, cross-entropy
or a scale-invariant loss at the image's own size. Many heads are trained at once; held-out training images choose.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ijepa import pictures
from ijepa.config import Dense, Depth
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Images
from ijepa.errors import ConfigError
from ijepa.evaluation import pairs, views
from ijepa.evaluation.bench import Bench, Found, Subject
from ijepa.evaluation.features import of_last
from ijepa.evaluation.heads import Heads
from ijepa.evaluation.progress import progress
from ijepa.evaluation.targets import Classes, Depths, Target
from ijepa.randomness import seed_of

START_STREAM = 12
MOST = 4096
"""Classes; maps with higher indices hold something else, numbers of objects for example."""
Grid = tuple[int, int]


class Setting(NamedTuple):
    """What tells a head from the others."""

    layers: int
    batch_norm: bool
    lr: float
    weight_decay: float


class Group(NamedTuple):
    """Heads that see the same features."""

    layers: int
    settings: list[Setting]
    heads: Heads


class Probe(NamedTuple):
    """Heads on features of the last ``layers`` blocks, from images [B, C, H, W] to [B, N, D * layers]."""

    embed: Callable[[Tensor], Tensor]
    layers: int
    patch_size: int
    groups: list[Group]


def evaluate(task: Dense, subject: Subject, bench: Bench) -> dict[str, Found]:
    """Of the head that is best on held-out training images by the first metric; all heads in the details."""
    target, source = _target(task, bench), bench.data.source
    held, kept = views.hold_out(task.holdout, len(source.train), bench.seed)
    probe = _train(task, target, subject, bench, kept)
    judged = _outcomes(task, target, probe, bench, source.train, held.tolist())
    everything = list(range(len(source.val)))
    tested = _outcomes(task, target, probe, bench, source.val, everything, f"{subject.name}: {target.kind}")
    rows = []
    first = metrics(task)[0]
    for group, theirs, found in zip(probe.groups, judged, tested, strict=True):
        for head, setting in enumerate(group.settings):
            score, results = target.results(theirs[head])[first].value, target.results(found[head])
            rows.append((score, setting, results, (group, head), found[head]))
    _, best, results, (group, head), outcomes = max(rows, key=lambda row: np.nan_to_num(row[0], nan=-1))
    listed = [{**setting._asdict(), "holdout": score, "test": r[first].value} for score, setting, r, *_ in rows]
    details: dict[str, Any] = {"chosen": best._asdict(), "images": len(outcomes), "heads": listed}
    if isinstance(target, Classes):
        shares = target.iou(outcomes.sum(dim=0, keepdim=True))[0].tolist()
        details["iou"] = [None if math.isnan(share) else share for share in shares]
    if bench.folder is not None:
        bench.kept[f"{target.kind} {subject.name}"] = _examples(task, target, probe, group, head, bench)
    return {"": Found(results, details)}


def metrics(task: Dense, several: bool = True) -> list[str]:
    """Two."""
    if isinstance(task, Depth):
        return ["depth_delta1", "depth_rmse"]
    return ["segmentation_miou", "segmentation_accuracy"]


def refuse(task: Dense, data: DataModule) -> None:
    """Refuses images without maps."""
    pairs.refuse(_kind(task), data)


def write(task: Dense, subject: Subject, bench: Bench, folder: Path) -> list[Path]:
    """The picture: image, map and prediction of some validation images, evenly spread."""
    images, maps, predicted = bench.kept[f"{_kind(task)} {subject.name}"]
    draw = pictures.depths if isinstance(task, Depth) else pictures.classes
    path = folder / f"{_kind(task)}-{subject.name.replace(' ', '-')}.png"
    pictures.write(draw(images, maps, predicted), path)
    return [path]


def backward(target: Target, heads: Heads, features: Tensor, grid: Grid, maps: Tensor) -> None:
    """Adds the gradients of each head's loss, for features [B, N, D]: the upsampled predictions of one head at a time.

    All heads' at once would be H times K maps of every image.
    """
    logits = heads(features.flatten(0, 1))  # [H, B * N, K]
    slopes = []
    for each in logits.detach():
        each.requires_grad_()
        target.loss(upsampled(each, grid, maps), maps).backward()  # type: ignore[no-untyped-call]
        slopes.append(each.grad)
    logits.backward(torch.stack(slopes))


def upsampled(logits: Tensor, grid: Grid, maps: Tensor) -> Tensor:
    """From a head's outputs [B * N, K] to [B, K, H, W], as large as ``maps``."""
    coarse = logits.unflatten(0, (len(maps), *grid)).permute(0, 3, 1, 2)
    return F.interpolate(coarse, size=maps.shape[1:], mode="bilinear", align_corners=False)


def _kind(task: Dense) -> str:
    return "depth" if isinstance(task, Depth) else "segmentation"


def _target(task: Dense, bench: Bench) -> Target:
    if isinstance(task, Depth):
        return Depths()
    if "classes" not in bench.kept:  # the same for all subjects
        bench.kept["classes"] = pairs.classes(bench, task.batch_size)
    found = bench.kept["classes"]
    if found > MOST:
        problem = f"its maps hold values up to {found - 1}; class indices, from 0, would do"
        raise ConfigError("data.segmentation_root", bench.data.source.val.name(0), problem)
    return Classes(max(found, 1))


def _train(task: Dense, target: Target, subject: Subject, bench: Bench, kept: Tensor) -> Probe:
    """Passes over the training images number ``kept``; an image goes through the encoder once for all heads."""
    layers = sorted({1 if subject.encoder is None else count for count in task.layers})
    embed = subject.embed_patches(bench.runtime, layers[-1])
    probe = Probe(embed, layers[-1], subject.patch, [])
    batches = views.Batches(kept, views.size_of(task.batch_size, len(kept)), task.epochs, bench.seed)
    loader = pairs.training(bench, target.kind, batches)
    title = bench.title(f"{subject.name}: {target.kind} probe")
    for step, batch in enumerate(progress(loader, title, len(batches))):
        images, maps = pairs.readable(bench, *batch)
        if not len(images):
            continue
        with torch.no_grad():
            features = embed(images)
        if not probe.groups:
            probe.groups.extend(_groups(task, target, layers, features.shape[2], maps, bench))
        factor = (1 + math.cos(math.pi * step / len(batches))) / 2
        for group in probe.groups:
            theirs = _of_last(features, group.layers, layers[-1])
            backward(target, group.heads, theirs, _grid(images, probe.patch_size), maps)
            group.heads.step(factor)
    if not probe.groups:
        raise _nothing(target, "training")
    for group in probe.groups:
        group.heads.eval()
    return probe


def _groups(task: Dense, target: Target, layers: list[int], width: int, maps: Tensor, bench: Bench) -> list[Group]:
    made, start = [], target.start(maps)
    for count, batch_norm in itertools.product(layers, task.batch_norm):
        settings = [Setting(count, batch_norm, *pair) for pair in itertools.product(task.lr, task.weight_decay)]
        heads = Heads(
            width // layers[-1] * count,
            target.outputs,
            torch.tensor([setting.lr for setting in settings]),
            torch.tensor([setting.weight_decay for setting in settings]),
            batch_norm,
            task.momentum,
            False,
            torch.Generator().manual_seed(seed_of(bench.seed, START_STREAM, 0, 0)),
        ).to(bench.runtime.device)
        heads.bias.data += start
        made.append(Group(count, settings, heads))
    return made


@torch.no_grad()
def _outcomes(
    task: Dense, target: Target, probe: Probe, bench: Bench, images: Images, indices: list[int], title: str = ""
) -> list[Tensor]:
    """By group, what each readable image contributes to the results of each head: [H, n, S]."""
    loader = pairs.ordered(bench, target.kind, images, indices, task.batch_size)
    found: list[list[Tensor]] = [[] for _ in probe.groups]
    for batch in progress(loader, bench.title(title) if title else "", len(loader)):
        shown, maps = pairs.readable(bench, *batch)
        if not len(shown):
            continue
        features = probe.embed(shown)
        for group, rows in zip(probe.groups, found, strict=True):
            logits = group.heads(_of_last(features, group.layers, probe.layers).flatten(0, 1))
            grid = _grid(shown, probe.patch_size)
            rows.append(torch.stack([target.outcomes(upsampled(each, grid, maps), maps).cpu() for each in logits]))
    if not found[0]:
        raise _nothing(target, "validation" if images is bench.data.source.val else "held-out training")
    return [torch.cat(rows, dim=1) for rows in found]


@torch.no_grad()
def _examples(
    task: Dense, target: Target, probe: Probe, group: Group, head: int, bench: Bench
) -> tuple[Tensor, Tensor, Tensor]:
    """Images, maps and predictions of one head, of validation images."""
    val = bench.data.source.val
    spread = np.linspace(0, len(val) - 1, min(task.examples, len(val))).round().astype(int).tolist()
    images, maps = pairs.readable(bench, *next(iter(pairs.ordered(bench, target.kind, val, spread, len(spread)))))
    logits = group.heads(_of_last(probe.embed(images), group.layers, probe.layers).flatten(0, 1))[head]
    values = target.values(upsampled(logits, _grid(images, probe.patch_size), maps))
    return images.cpu(), maps.cpu(), values.cpu()


def _of_last(features: Tensor, layers: int, more: int) -> Tensor:
    """`of_last` of each patch: [B, N, D * layers]."""
    return of_last(features.flatten(0, 1), layers, more).unflatten(0, features.shape[:2])


def _grid(images: Tensor, patch_size: int) -> Grid:
    return images.shape[-2] // patch_size, images.shape[-1] // patch_size


def _nothing(target: Target, part: str) -> ConfigError:
    return ConfigError(f"data.{target.kind}_root", None, f"no {part} image has a readable {target.kind} map")
