"""The context that the tasks of one command share: images, hardware, and extracted features."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Images, UnreadableError
from ijepa.evaluation import cache
from ijepa.evaluation.features import Features, of_last, pixel_patches, pixels
from ijepa.evaluation.measures import Measured
from ijepa.evaluation.runtime import Embed, Runtime
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.errors import UserError

UNTRAINED = "random init"
"""Name of the randomly initialised encoder."""


class TaskResult(NamedTuple):
    """A task's results on one label set: values by metric, and details for metrics.json."""

    results: dict[str, Measured]
    details: Any = None


@dataclass(frozen=True)
class EvaluatedModel:
    """An evaluated model or baseline: an encoder, or raw pixels (None) in patches of ``patch_size``."""

    name: str
    encoder: PretrainedEncoder | None
    baseline: bool = False
    patch_size: int = 1

    @property
    def patch(self) -> int:
        """The side of a patch, in pixels."""
        return self.patch_size if self.encoder is None else self.encoder.spec.patch_size

    def embed(self, runtime: Runtime, layers: int, mirrored: bool = False) -> Embed:
        """From images, or their mirror images, to features of the last ``layers`` blocks; pixels have none."""
        if self.encoder is None:
            return (lambda images: pixels(images.flip(-1))) if mirrored else pixels
        return runtime.pooled(self.encoder, layers, mirrored)

    def embed_patches(self, runtime: Runtime, layers: int) -> Embed:
        """The same of each patch: from images to [B, N, D]."""
        if self.encoder is None:
            return partial(pixel_patches, patch_size=self.patch_size)
        return runtime.patches(self.encoder, layers)


def label_sets(data: DataModule) -> list[str]:
    """The label sets that both training and validation images have; none without validation images."""
    train, val = data.source.train, data.source.val
    return [name for name in train.labels if name in val.labels and len(train) and len(val)]


@dataclass
class EvalContext:
    """Where tasks are run.

    Attributes:
        data: training and validation images.
        runtime: device and precision.
        seed: of held-out splits, crops and intervals.
        layers: the last so many blocks make the features, for tasks that do not choose.
        cache: folder that keeps features; None: nowhere.
        folder: where pictures and files go; None: none are made.
        quiet: without progress.
        baselines: whether pictures show random init beside.
        run: folder of the run that the encoder is of; None: there is none, or it has no matter.
        files: what tasks have written.
        kept: what a task has found and needs again: for its picture, for the next model.
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
    files: list[Path] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)
    _kept: dict[tuple[str, int], tuple[Features, Features]] = field(default_factory=dict)
    _mirrored: dict[str, Tensor] = field(default_factory=dict)

    def features(self, evaluated: EvaluatedModel, layers: int, batch_size: int) -> tuple[Features, Features]:
        """Of training and validation images; those of fewer layers are a part of those of more."""
        if evaluated.encoder is None:
            layers = 1
        for (name, more), pair in self._kept.items():
            if name == evaluated.name and more >= layers:
                first, second = (Features(of_last(part.values, layers, more), *part[1:]) for part in pair)
                return first, second
        source = self.data.source
        train, val = (
            self._extract(evaluated, layers, part, images, batch_size)
            for part, images in (("training", source.train), ("validation", source.val))
        )
        for part, found, images in (("training", train, source.train), ("validation", val, source.val)):
            if len(images) and not len(found.values):
                raise UserError(f"none of {len(images)} {part} images can be read; the first: {images.name(0)}")
        self._kept = {(evaluated.name, layers): (train, val)}  # one model after the other
        return train, val

    def mirrored(self, evaluated: EvaluatedModel, layers: int, batch_size: int) -> Tensor:
        """Features of the mirror images of the readable training images: [n, D]."""
        name = f"{evaluated.name}, {layers}"
        if name not in self._mirrored:
            values, _ = cache.features(
                evaluated.embed(self.runtime, layers, mirrored=True), self.data.source.train, self.data, batch_size,
                self.runtime, self.cache, self.title(f"{evaluated.name}: features of mirrored training images"),
            )  # fmt: skip
            self._mirrored = {name: values}  # one model after the other
        return self._mirrored[name]

    def title(self, text: str) -> str:
        """Of a progress bar."""
        return "" if self.quiet else text

    def _extract(self, evaluated: EvaluatedModel, layers: int, part: str, images: Images, batch_size: int) -> Features:
        values, readable = cache.features(
            evaluated.embed(self.runtime, layers), images, self.data, batch_size, self.runtime, self.cache,
            self.title(f"{evaluated.name}: features of {part} images"),
        )  # fmt: skip
        if not values.isfinite().all():
            told = "not finite: training has diverged; try an earlier checkpoint, or train with a lower optimizer.lr"
            raise UserError(f"{evaluated.name}: features of {part} images are {told}")
        for index in (~readable).nonzero().flatten().tolist():
            if images.name(index) not in self.data.unreadable:
                self.data.unreadable[images.name(index)] = fault = _fault(images, index)
                if self.runtime.ranks.rank == 0:
                    print(f"unreadable, skipped in the evaluation: {fault}")
        labels = {name: torch.tensor(images.labels[name])[readable] for name in label_sets(self.data)}
        return Features(values, labels, readable.nonzero().flatten())


def _fault(images: Images, index: int) -> str:
    """Why an image cannot be read, in the words of training."""
    try:
        images.read(index)
    except UnreadableError as fault:
        return str(fault)
    return images.name(index)  # by now it can
