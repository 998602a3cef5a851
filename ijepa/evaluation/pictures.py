"""task=pictures: visualises an encoder's features and attention. Needs no labels and gives no results."""

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
from ijepa.evaluation.context import UNTRAINED, EvalContext, EvaluatedModel
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.runtime import Runtime
from ijepa.evaluation.specs import lookup
from ijepa.evaluation.task import FileTask
from ijepa.models.attention import attention_weights
from ijepa.models.pretrained import PretrainedEncoder, untrained_encoder
from ijepa.run_folder import RunFolder
from ijepa.util.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAST_BLOCKS = 1 / 3
"""Share of the blocks that are the last ones; the output of the block before these is drawn, too."""

DrawFigure = Callable[[], "Figure | None"]
"""Draws a figure; None if there is nothing to draw."""


class PicturesTask(FileTask[Pictures]):
    """Pictures of an encoder's features and attention."""

    name = "pictures"

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Draws the pictures, not for baselines; the components are compared with random init."""
        if model.baseline or model.encoder is None:
            return []
        pool = ImagePool(self.config, model, ctx)
        images = pool.read(pool.rows)
        drawings = EncoderPictures(model.name, model.encoder, images, len(pool.shown), ctx.runtime)
        has_baseline = ctx.baselines and model.name != UNTRAINED
        baseline = untrained_encoder(model.encoder.spec, ctx.seed) if has_baseline else None
        queries = [drawings.patch_at(query) for query in self.config.queries]
        figures: dict[str, DrawFigure] = {
            "components": lambda: drawings.components(baseline),
            "similarity": lambda: drawings.similarity(queries),
            "correspondence": lambda: drawings.similarity(queries[:1], of=0) if drawings.count > 1 else None,
            "attention": lambda: drawings.attention(queries[0], self.config.block, self.config.heads),
            "neighbours": lambda: pool.neighbours(self.config.neighbours),
        }
        if ctx.data.masking is not None:
            figures |= masks(ctx.data, drawings.images[: drawings.count], drawings.patch_size, ctx.seed, 0)
        if ctx.run is not None and (metrics := RunFolder(ctx.run).metrics).is_file():
            figures |= curves(metrics)
        return write_figures(figures, folder)


def write_figures(
    figures: dict[str, DrawFigure], folder: Path, log: "Callable[[str, Figure], None]" = lambda name, figure: None
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


class EncoderPictures:
    """Figures of one encoder on the same images.

    Args:
        name: of the encoder, for titles.
        encoder: in eval mode.
        images: [M, C, H, W] in 0..1; principal components are computed from all of them.
        count: number of images to show: the first ones.
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
        width, depth = encoder.spec.width, encoder.spec.depth
        last = round(LAST_BLOCKS * depth)
        self.layers = last + 1
        features = patches(encoder, images, runtime, self.layers)
        self.features = features[..., -width:].clone()  # clones, so that the blocks between need no memory
        self.earlier = {f"block {depth - last} of {depth}": features[..., :width].clone()} if last else {}

    def patch_at(self, query: list[float]) -> tuple[int, int]:
        """Row and column of the patch at ``query``: fractions of the height and the width."""
        row, column = (min(int(fraction * side), side - 1) for fraction, side in zip(query, self.grid, strict=True))
        return row, column

    def components(self, baseline: PretrainedEncoder | None) -> "Figure":
        """Principal components of the features of the encoder, of an earlier block of it, and of the baseline."""
        shown, layers, width = self.images[: self.count], self.layers, self.encoder.spec.width

        def blocks(images: Tensor) -> list[Tensor]:
            features = patches(self.encoder, images, self.runtime, layers)
            return [features[..., -width:], features[..., :width]][: 1 + len(self.earlier)]

        found = [pictures.components_of(features) for features in (self.features, *self.earlier.values())]
        values = pictures.fine_scores(blocks, shown, self.grid, found)
        if baseline is not None:
            untrained = pictures.components_of(patches(baseline, self.images, self.runtime))
            values += pictures.fine_scores(
                lambda images: [patches(baseline, images, self.runtime)], shown, self.grid, [untrained]
            )
        names = [self.name, *self.earlier, *([] if baseline is None else [UNTRAINED])]
        coloured = dict(zip(names, map(pictures.stretched, values), strict=True))
        return pictures.colours(shown, coloured, pictures.fine_grid(self.grid, shown.shape[-2]))

    def similarity(self, queries: list[tuple[int, int]], of: int | None = None) -> "Figure":
        """Similarity of query patches to all patches of their image, or of image ``of``'s queries to all images."""
        return pictures.similarity(self.images[: self.count], self.features, self.grid, queries, of)

    def attention(self, query: tuple[int, int], block: int, heads: int) -> "Figure | None":
        """Attention in ``block``, counted from 1, or back from -1, the last; None if it cannot be computed."""
        shown, network = self.images[: self.count], self.encoder.to(self.runtime.device)
        inputs = (shown.to(self.runtime.device) - network.mean) / network.std
        weights = attention_weights(network.encoder, inputs, block - 1 if block > 0 else block)
        return None if weights is None else pictures.attention(shown, weights.cpu(), self.grid, query, heads)


def masks(data: DataModule, images: Tensor, patch_size: int, seed: int, step: int) -> dict[str, DrawFigure]:
    """Figures of context and targets, with the masks of ``step`` at the first positions of the batch."""
    assert data.masking is not None
    image_masks = data.masking.sample(seed, step, np.arange(len(images)))
    return {
        "masks": lambda: pictures.masks(images, image_masks, patch_size),
        "outlines": lambda: pictures.outlines(images, image_masks, patch_size),
    }


def curves(file: Path) -> dict[str, DrawFigure]:
    """Figures of a metrics.csv: curves against the step, and accuracy against compute; none if it is broken."""
    try:
        columns = pictures.read(file)
    except UserError as error:
        print(f"curves   left out: {error}")
        return {}
    return {"curves": lambda: pictures.curves(columns, lookup), "compute": lambda: pictures.compute(columns, lookup)}


@torch.inference_mode()
def patches(
    encoder: PretrainedEncoder, images: Tensor, runtime: Runtime, layers: int = 1, batch_size: int = 16
) -> Tensor:
    """Patch features [B, N, D * layers] of images [B, C, H, W], on the CPU."""
    embed = runtime.patches(encoder, layers)
    return torch.cat([embed(part.to(runtime.device)).cpu() for part in images.split(batch_size)])


class ImagePool:
    """All readable images: validation images, then training images.

    Attributes:
        values: [n, D], their pooled features.
        shown: rows of the images to show.
        rows: rows of the images from which principal components are computed; the first are `shown`.
    """

    def __init__(self, config: Pictures, model: EvaluatedModel, ctx: EvalContext) -> None:
        train, val = ctx.features(model, ctx.layers, config.batch_size)
        source = ctx.data.source
        self.values = torch.cat([features.values for features in (val, train) if len(features.values)])
        self._transform = ctx.data.eval_transform
        self._files = [(source.val, index) for index in val.indices.tolist()]
        self._files += [(source.train, index) for index in train.indices.tolist()]
        self.shown = evenly_spaced(
            len(val.values) if len(val.values) >= config.images else len(self.values), config.images
        )
        others = [row for row in evenly_spaced(len(self.values), config.projected) if row not in self.shown]
        self.rows = self.shown + others[: max(config.projected - len(self.shown), 0)]

    def read(self, rows: list[int]) -> Tensor:
        """The transformed images [B, C, H, W] of ``rows``."""
        files = [self._files[row] for row in rows]
        return torch.stack([self._transform(images.read(index)) for images, index in files])

    def neighbours(self, count: int) -> "Figure | None":
        """The `shown` images and the ``count`` nearest of all others; None if there are no others."""
        count = min(count, len(self.values) - 1)
        if not count:
            return None
        rows, names, cosines = [], [], []
        chunks = zip(*neighbours(self.values, self.values[self.shown], count + 1, center=True), strict=True)
        similarity, nearest = (torch.cat(parts).tolist() for parts in chunks)
        for query, values, candidates in zip(self.shown, similarity, nearest, strict=True):
            others = [(row, value) for row, value in zip(candidates, values, strict=True) if row != query][:count]
            chosen = [query, *(row for row, _ in others)]
            rows.append(self.read(chosen))
            names.append([images.name(index) for images, index in (self._files[row] for row in chosen)])
            cosines.append([value for _, value in others])
        return pictures.neighbours(torch.stack(rows), names, cosines)
