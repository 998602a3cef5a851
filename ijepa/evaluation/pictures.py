"""task=pictures: what an encoder sees of images, for the eye. No labels, and no results."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Pictures
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import evenly_spaced
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.runtime import Runtime
from ijepa.evaluation.specs import lookup
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.models.attention import attention
from ijepa.models.pretrained import PretrainedEncoder, untrained
from ijepa.run_folder import RunFolder
from ijepa.util.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Make = Callable[[], "Figure | None"]
"""Draws a figure, where there is one to draw."""


class PicturesTask(ConfiguredTask[Pictures]):
    """Pictures of what an encoder sees."""

    name = "pictures"
    needs_labels = False

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """No result; features of whole images are found here, where all devices take part."""
        if not evaluated.baseline:
            ctx.features(evaluated, ctx.layers, self.config.batch_size)
        return {}

    def metrics(self, several: bool) -> list[MetricSpec]:
        """None."""
        return []

    def write(self, evaluated: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """The pictures, of the encoder alone; random init stands beside it in the first."""
        if evaluated.baseline or evaluated.encoder is None:
            return []
        pool = Pool(self.config, evaluated, ctx)
        view = View(evaluated.name, evaluated.encoder, pool.read(pool.rows), len(pool.shown), ctx.runtime)
        beside = untrained(evaluated.encoder.spec, ctx.seed) if ctx.baselines and evaluated.name != UNTRAINED else None
        places = [view.place(query) for query in self.config.queries]
        figures: dict[str, Make] = {
            "components": lambda: view.components(beside),
            "similarity": lambda: view.similarity(places),
            "correspondence": lambda: view.similarity(places[:1], of=0) if view.count > 1 else None,
            "attention": lambda: view.attention(places[0], self.config.block, self.config.heads),
            "neighbours": lambda: pool.neighbours(self.config.neighbours),
        }
        if ctx.data.masking is not None:
            figures |= masks(ctx.data, view.images[: view.count], view.patch_size, ctx.seed, 0)
        if ctx.run is not None and (metrics := RunFolder(ctx.run).metrics).is_file():
            figures |= curves(metrics)
        return draw(figures, folder)


def draw(
    figures: dict[str, Make], folder: Path, log: "Callable[[str, Figure], None]" = lambda name, figure: None
) -> list[Path]:
    """Writes the figures as ``folder/NAME.png`` and passes each to ``log``, one at a time."""
    written = []
    for name, make in figures.items():
        figure = make()
        if figure is not None:
            written.append(folder / f"{name}.png")
            pictures.write(figure, written[-1])
            log(name, figure)
    return written


class View:
    """An encoder and the images that it is seen by.

    Args:
        name: of the encoder.
        encoder: in eval mode.
        images: [M, C, H, W] in 0..1; the first ``count`` are shown, the components are those of all.
        count: see there.
        runtime: where the encoder runs.
    """

    def __init__(self, name: str, encoder: PretrainedEncoder, images: Tensor, count: int, runtime: Runtime) -> None:
        self.name = name
        self.encoder = encoder
        self.images = images
        self.count = count
        self.runtime = runtime
        self.patch_size = encoder.spec.patch_size
        self.grid = encoder.encoder.grid_of(*images.shape[-2:])
        self.features = patches(encoder, images, runtime)

    def place(self, query: list[float]) -> tuple[int, int]:
        """The patch at shares of the height and the width."""
        row, column = (min(int(share * side), side - 1) for share, side in zip(query, self.grid, strict=True))
        return row, column

    def components(self, beside: PretrainedEncoder | None) -> "Figure":
        """Of the encoder, and of one with initial weights."""
        named = {self.name: self.features}
        if beside is not None:
            named[UNTRAINED] = patches(beside, self.images, self.runtime)
        return pictures.components(self.images[: self.count], named, self.grid)

    def similarity(self, places: list[tuple[int, int]], of: int | None = None) -> "Figure":
        """Of patches to all others of their image, or of one image's patches to those of all images."""
        return pictures.similarity(self.images[: self.count], self.features, self.grid, places, of)

    def attention(self, place: tuple[int, int], block: int, heads: int) -> "Figure | None":
        """Of a block, counted from 1 or from the last one back; None where its attention cannot be computed."""
        shown, network = self.images[: self.count], self.encoder.to(self.runtime.device)
        seen = (shown.to(self.runtime.device) - network.mean) / network.std
        weights = attention(network.encoder, seen, block - 1 if block > 0 else block)
        return None if weights is None else pictures.attention(shown, weights.cpu(), self.grid, place, heads)


def masks(data: DataModule, images: Tensor, patch_size: int, seed: int, step: int) -> dict[str, Make]:
    """Context and targets of ``images``, as they would be drawn at ``step``."""
    assert data.masking is not None
    chosen = data.masking.sample(seed, step, np.arange(len(images)))
    return {
        "masks": lambda: pictures.masks(images, chosen, patch_size),
        "outlines": lambda: pictures.outlines(images, chosen, patch_size),
    }


def curves(file: Path) -> dict[str, Make]:
    """Of a metrics.csv: everything against the step, and accuracy against compute; says so where it is broken."""
    try:
        columns = pictures.read(file)
    except UserError as error:
        print(f"curves   left out: {error}")
        return {}
    return {"curves": lambda: pictures.curves(columns, lookup), "compute": lambda: pictures.compute(columns, lookup)}


@torch.inference_mode()
def patches(encoder: PretrainedEncoder, images: Tensor, runtime: Runtime, batch_size: int = 16) -> Tensor:
    """Patch features [B, N, D] of images [B, C, H, W], on the CPU."""
    embed = runtime.patches(encoder)
    return torch.cat([embed(part.to(runtime.device)).cpu() for part in images.split(batch_size)])


class Pool:
    """All readable images: those for validation, then those for training.

    Attributes:
        values: [n, D], their features.
        rows: which of them pictures are about: those that are shown first.
    """

    def __init__(self, task: Pictures, evaluated: EvaluatedModel, ctx: EvalContext) -> None:
        train, val = ctx.features(evaluated, ctx.layers, task.batch_size)
        source, kept = ctx.data.source, [part.values for part in (val, train) if len(part.values)]
        self.values = torch.cat(kept)
        self._transform = ctx.data.eval_transform
        self._files = [(source.val, index) for index in val.indices.tolist()]
        self._files += [(source.train, index) for index in train.indices.tolist()]
        self.shown = evenly_spaced(len(val.values) if len(val.values) >= task.images else len(self.values), task.images)
        others = [row for row in evenly_spaced(len(self.values), task.projected) if row not in self.shown]
        self.rows = self.shown + others[: max(task.projected - len(self.shown), 0)]

    def read(self, rows: list[int]) -> Tensor:
        """The images [B, C, H, W] of some rows."""
        files = [self._files[row] for row in rows]
        return torch.stack([self._transform(images.read(index)) for images, index in files])

    def neighbours(self, count: int) -> "Figure | None":
        """The nearest of all other images to those that are shown, by cosine similarity."""
        count = min(count, len(self.values) - 1)
        if not count:
            return None
        rows = []
        found = neighbours(self.values, self.values[self.shown], count + 1, center=True)
        nearest = torch.cat([rows for _, rows in found]).tolist()
        for query, theirs in zip(self.shown, nearest, strict=True):
            rows.append(self.read([query, *[row for row in theirs if row != query][:count]]))
        return pictures.neighbours(torch.stack(rows))
