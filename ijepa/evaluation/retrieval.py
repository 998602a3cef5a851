"""task=retrieval: the nearest training images of validation images: a picture, and how many have the same class."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ijepa import pictures
from ijepa.config import Retrieval
from ijepa.data.datamodule import DataModule
from ijepa.data.files import Files
from ijepa.data.heldout import evenly_spaced
from ijepa.data.limits import ValueLimit
from ijepa.data.scan import scan_folder
from ijepa.data.sets import UNLABELLED, Images
from ijepa.evaluation import specs
from ijepa.evaluation.cache import cached_features
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult, label_sets, unreadable_reason
from ijepa.evaluation.features import Features
from ijepa.evaluation.knn import neighbours
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.errors import ConfigError, UnavailableError
from ijepa.util.files import write_csv

TABLE = "neighbours.csv"


class RetrievalTask(ConfiguredTask[Retrieval]):
    """Precision of the nearest neighbours, a picture and a table of them."""

    name = "retrieval"
    needs_labels = False
    queries: "tuple[Files, Features] | None" = None

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: the fraction of the nearest training images that have the image's class (precision at k).

        Over the validation images that have a label; a neighbour without one does not count as of the same class.
        """
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        if self.config.query is not None:
            self.queries = _queries(self.config, model, ctx)
            return {}
        _, nearest = _nearest(train.values, test.values, self.config.neighbours)
        results = {}
        for name in label_sets(ctx.data):
            classes = test.labels[name]
            known = classes != UNLABELLED
            precision = (train.labels[name][nearest[known]] == classes[known, None]).double().mean(dim=1)
            per_image = torch.stack([precision, torch.ones_like(precision)], dim=1)
            results[name] = TaskResult({self.metrics(True)[0].name: MetricValue(precision.mean().item(), per_image)})
        return results

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The precision."""
        return [specs.RETRIEVAL.instance(neighbours=self.config.neighbours)]

    def validate(self, data: DataModule) -> None:
        """Raises UnavailableError without validation images, ConfigError if there are no queries."""
        if self.config.query is not None:
            _query_files(self.config, data)
        elif not len(data.source.val):
            raise UnavailableError("data.val_fraction", 0, "leaves no validation images to find neighbours for")

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Draws some validation images with their nearest training images; not for baselines, a table of all.

        The table, ``neighbours.csv``, has a row per neighbour: query, rank, file, cosine, and the classes of both.
        """
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        source = ctx.data.source
        asked, test = self.queries or (source.val, test)
        similarity, nearest = _nearest(train.values, test.values, self.config.neighbours)
        chosen = evenly_spaced(len(nearest), self.config.queries)
        places = [
            [
                (asked, int(test.indices[query])),
                *((source.train, int(train.indices[i])) for i in nearest[query].tolist()),
            ]
            for query in chosen
        ]
        transform = ctx.data.eval_transform
        rows = [torch.stack([transform(images.read(index)) for images, index in row]) for row in places]
        names = [[images.name(index) for images, index in row] for row in places]
        path = folder / f"retrieval-{model.name.replace(' ', '-')}.png"
        pictures.write(pictures.neighbours(torch.stack(rows), names, similarity[chosen].tolist()), path)
        if model.baseline:
            return [path]
        write_csv(folder / TABLE, _table(ctx, asked, train, test, similarity, nearest))
        return [path, folder / TABLE]


def _nearest(train: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The rows of ``train`` nearest to each row of ``values``: cosine similarities, rows; both [n, count]."""
    similarity, rows = zip(*neighbours(train, values, count, center=True), strict=True)
    return torch.cat(similarity), torch.cat(rows)


def _query_files(
    config: Retrieval, data: DataModule, max_pixels: int | None = None, limit: ValueLimit | None = None
) -> Files:
    """The images whose neighbours are sought; raises ConfigError if there are none."""
    assert config.query is not None
    path = Path(config.query).expanduser()
    paths = [str(path)] if path.is_file() else scan_folder(path).paths
    if not paths:
        raise ConfigError(
            "task.retrieval.query", config.query, "no image there" if path.exists() else "no such file or folder"
        )
    return Files(paths, {}, data.channels, max_pixels, limit=limit)


def _queries(config: Retrieval, model: EvaluatedModel, ctx: EvalContext) -> tuple[Files, Features]:
    files = _query_files(config, ctx.data, ctx.max_pixels, ctx.value_limit)
    embed = model.embed(ctx.runtime, ctx.layers)
    values, readable = cached_features(embed, files, ctx.data, config.batch_size, ctx.runtime, None, "")
    if not len(values):
        raise ConfigError("task.retrieval.query", config.query, "no image there can be read")
    for index in (~readable).nonzero().flatten().tolist() if ctx.runtime.ranks.rank == 0 else ():
        print(f"unreadable, skipped among the queries: {unreadable_reason(files, index)}")
    return files, Features(values, {}, readable.nonzero().flatten())


def _table(
    ctx: EvalContext, asked: Images, train: Features, test: Features, similarity: Tensor, nearest: Tensor
) -> Iterator[list[str]]:
    """The lines of the table of neighbours, the first one with the columns' names."""
    source, names = ctx.data.source, label_sets(ctx.data)

    def classes(features: Features, row: int) -> list[str]:
        labels = [(source.classes.get(name), int(features.labels[name][row])) for name in names]
        return ["" if i == UNLABELLED else titles[i] if titles else str(i) for titles, i in labels]

    named = [f"{image}_{name}" for image in ("query", "file") for name in names if image == "file" or test.labels]
    yield ["query", "rank", "file", "cosine", *named]
    for query, (cosines, rows) in enumerate(zip(similarity.tolist(), nearest.tolist(), strict=True)):
        image = asked.name(int(test.indices[query]))
        for rank, (cosine, row) in enumerate(zip(cosines, rows, strict=True), start=1):
            file = source.train.name(int(train.indices[row]))
            own = classes(test, query) if test.labels else []
            yield [image, str(rank), file, f"{cosine:.6f}", *own, *classes(train, row)]
