"""What the tasks of one command share: images, hardware, and extracted features."""

import copy
import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ijepa.data.datamodule import DataModule
from ijepa.data.limits import MAX_DEVIATIONS, ValueLimit
from ijepa.data.sets import Images, Subset, UnreadableError, has_label
from ijepa.evaluation import cache
from ijepa.evaluation.features import Features, last_layers, pixel_patches, pixels
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.runtime import Embed, Runtime
from ijepa.interop.classifier_files import FILE
from ijepa.interop.weights import Which
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.errors import UserError

MAX_SUFFIX = 80
"""Characters of label sets in a file's name, at most."""
UNTRAINED = "random init"
"""Name of the randomly initialised encoder."""


class TaskResult(NamedTuple):
    """A task's results on one label set: values by metric, and details for metrics.json."""

    results: dict[str, MetricValue]
    details: Any = None


@dataclass(frozen=True)
class EvaluatedModel:
    """A model or a baseline to evaluate.

    Attributes:
        name: for tables and files.
        encoder: None: raw pixels.
        baseline: whether it is evaluated only for comparison.
        pixel_patch_size: side of a patch of raw pixels.
    """

    name: str
    encoder: PretrainedEncoder | None
    baseline: bool = False
    pixel_patch_size: int = 1

    @property
    def patch_size(self) -> int:
        """The side of a patch, in pixels."""
        return self.pixel_patch_size if self.encoder is None else self.encoder.spec.patch_size

    def embed(self, runtime: Runtime, layers: int, mirrored: bool = False) -> Embed:
        """From images, or their mirror images, to pooled features [B, D * layers] of the last ``layers`` blocks.

        For raw pixels, ``layers`` is ignored.
        """
        if self.encoder is None:
            return (lambda images: pixels(images.flip(-1))) if mirrored else pixels
        return runtime.pooled(self.encoder, layers, mirrored)

    def embed_patches(self, runtime: Runtime, layers: int) -> Embed:
        """From images to the same features of each patch: [B, N, D * layers]."""
        if self.encoder is None:
            return partial(pixel_patches, patch_size=self.pixel_patch_size)
        return runtime.patches(self.encoder, layers)


def label_sets(data: DataModule) -> list[str]:
    """The label sets in which both a training and a validation image have a label."""
    train, val = data.source.train, data.source.val
    common = [name for name in train.labels if name in val.labels]
    return [name for name in common if has_label(train, name).any() and has_label(val, name).any()]


@dataclass
class EvalContext:
    """What tasks are run with.

    Attributes:
        data: training and validation images.
        runtime: device and precision.
        seed: of held-out splits, crops and bootstrap intervals.
        layers: features are those of the last ``layers`` blocks, for tasks that do not choose among layers.
        cache: folder of the feature cache; None: no cache.
        folder: where tasks write pictures and files; None: they write none.
        quiet: no progress bars.
        baselines: whether pictures compare the encoder with random init.
        run: folder of the encoder's run; None: unknown, or not needed.
        file_suffix: for the names of files, if there are several `labelled_contexts`: "-" and the label sets.
        write_models: whether tasks write the classifiers and dense heads that they train, to be used afterwards.
        classifiers: names of the tasks that train classifiers.
        encoder: which encoder is evaluated: ``target`` or ``context``.
        max_pixels: images with more pixels are not decoded; None: no limit.
        value_limit: on new float images; None: unknown.
        files: paths of the files that `Task.evaluate` has written.
        scratch: what a task stores for later: for its picture, or for the next model.
    """

    data: DataModule
    runtime: Runtime
    seed: int
    layers: int = 1
    cache: Path | None = None
    folder: Path | None = None
    quiet: bool = False
    baselines: bool = True
    run: Path | None = None
    file_suffix: str = ""
    write_models: bool = False
    classifiers: tuple[str, ...] = ()
    encoder: Which = "target"
    max_pixels: int | None = None
    value_limit: ValueLimit | None = None
    files: list[Path] = field(default_factory=list)
    scratch: dict[str, Any] = field(default_factory=dict)
    _features: dict[tuple[str, int], tuple[Features, Features]] = field(default_factory=dict)
    _mirrored_features: dict[str, Tensor] = field(default_factory=dict)
    _labelled: "list[EvalContext] | None" = None

    @property
    def max_deviations(self) -> float:
        """The limit on values that is stored with heads."""
        return MAX_DEVIATIONS if self.value_limit is None else self.value_limit.deviations

    def labelled_contexts(self) -> "list[EvalContext]":
        """Contexts of only the labelled images: one for the label sets in which the same images have a label.

        Just this context if all images have a label in every label set.
        """
        if self._labelled is None:
            self._labelled = self._divided()
        return self._labelled

    def _divided(self) -> "list[EvalContext]":
        source, groups = self.data.source, dict[bytes, list[str]]()
        masks = {name: (has_label(source.train, name), has_label(source.val, name)) for name in label_sets(self.data)}
        if all(mask.all() for pair in masks.values() for mask in pair):
            return [self]
        for name, (train, val) in masks.items():
            groups.setdefault(train.tobytes() + val.tobytes(), []).append(name)
        divided = []
        for names in groups.values():
            parts: list[Images] = []
            for images, mask in zip((source.train, source.val), masks[names[0]], strict=True):
                part = Subset(images, np.flatnonzero(mask).tolist())
                part.labels = {name: part.labels[name] for name in names}
                parts.append(part)
            data = copy.copy(self.data)
            data.source = replace(source, train=parts[0], val=parts[1])
            suffix = f"-{_short('-'.join(names))}" if len(groups) > 1 else ""
            divided.append(
                replace(self, data=data, file_suffix=suffix, _features={}, _mirrored_features={}, _labelled=None)
            )
        return divided

    def features(self, model: EvaluatedModel, layers: int, batch_size: int) -> tuple[Features, Features]:
        """Pooled features of training and validation images, extracted once per model.

        Args:
            model: whose features.
            layers: number of last blocks; D is ``layers`` times the width. Raw pixels ignore it.
            batch_size: images per forward pass.

        Raises:
            UserError: if features are not finite, or no image of a split can be read.
        """
        if model.encoder is None:
            layers = 1
        for (name, total), pair in self._features.items():
            if name == model.name and total >= layers:
                train, val = (Features(last_layers(split.values, layers, total), *split[1:]) for split in pair)
                return train, val
        source = self.data.source
        train, val = (
            self._extract(model, layers, split, images, batch_size)
            for split, images in (("training", source.train), ("validation", source.val))
        )
        for split, features, images in (("training", train, source.train), ("validation", val, source.val)):
            if len(images) and not len(features.values):
                raise UserError(f"none of {len(images)} {split} images can be read; the first: {images.name(0)}")
        self._features = {(model.name, layers): (train, val)}  # of one model at a time, to save memory
        return train, val

    def mirrored_features(self, model: EvaluatedModel, layers: int, batch_size: int) -> Tensor:
        """Pooled features of the mirrored training images, as `features`: [n, D], readable images only."""
        name = f"{model.name}, {layers}"
        if name not in self._mirrored_features:
            values, _ = cache.cached_features(
                model.embed(self.runtime, layers, mirrored=True), self.data.source.train, self.data, batch_size,
                self.runtime, self.cache, self.title(f"{model.name}: features of mirrored training images"),
            )  # fmt: skip
            self._mirrored_features = {name: values}  # of one model at a time, to save memory
        return self._mirrored_features[name]

    def classifier_file(self, task: str) -> str:
        """The name of the file for the classifiers that ``task`` trains; with its name if there are several tasks."""
        name = f"-{task}" if len(self.classifiers) > 1 else ""
        return FILE.replace(".", f"{name}{self.file_suffix}.")

    def title(self, text: str) -> str:
        """The title of a progress bar; empty, hence no bar, if ``quiet``."""
        return "" if self.quiet else text

    def _extract(self, model: EvaluatedModel, layers: int, split: str, images: Images, batch_size: int) -> Features:
        values, readable = cache.cached_features(
            model.embed(self.runtime, layers), images, self.data, batch_size, self.runtime, self.cache,
            self.title(f"{model.name}: features of {split} images"),
        )  # fmt: skip
        if not values.isfinite().all():
            problem = "not finite: training has diverged; try an earlier checkpoint, or train with a lower optimizer.lr"
            raise UserError(f"{model.name}: features of {split} images are {problem}")
        for index in (~readable).nonzero().flatten().tolist():
            if images.name(index) not in self.data.unreadable:
                self.data.unreadable[images.name(index)] = reason = unreadable_reason(images, index)
                if self.runtime.ranks.rank == 0:
                    print(f"unreadable, skipped in the evaluation: {reason}")
        labels = {name: torch.tensor(images.labels[name])[readable] for name in label_sets(self.data)}
        return Features(values, labels, readable.nonzero().flatten())


def _short(name: str) -> str:
    """A name that fits into a file's name."""
    return name if len(name) <= MAX_SUFFIX else f"{name[:MAX_SUFFIX]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def unreadable_reason(images: Images, index: int) -> str:
    """The message of `Images.read`, as printed in training."""
    try:
        images.read(index)
    except UnreadableError as error:
        return str(error)
    return images.name(index)  # it has become readable meanwhile
