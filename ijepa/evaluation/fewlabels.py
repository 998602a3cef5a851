"""Selects the labelled images of low-shot tasks: a fraction of each class, a number per class, or a list in a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ijepa.config import Lowshot, LowshotFinetune
from ijepa.data.sets import Images, has_label
from ijepa.data.tables import matching
from ijepa.evaluation.augmentation import row_by_index
from ijepa.evaluation.context import EvalContext
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import MetricValue
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import Stream, shuffled
from ijepa.util.reading import read_text

Amount = float | int | Path
"""A fraction of each class (below 1), a number of images per class, or a file of image names."""
FewLabelsConfig = Lowshot | LowshotFinetune


def amounts(config: FewLabelsConfig) -> Iterator[tuple[str, Amount]]:
    """The configured amounts of labels, each with the suffix of its metric: 1pct, 5shot, or a file's name."""
    for fraction in config.shares:
        yield f"{100 * fraction:g}pct", fraction
    for count in config.shots:
        yield f"{count}shot", count
    for file in config.lists:
        yield Path(file).stem, Path(file).expanduser()


def validate(config: FewLabelsConfig, key: str, images: Images) -> None:
    """Checks that there is an amount, and that each list names labelled training images; raises ConfigError."""
    if not config.shares + config.shots + config.lists:
        raise ConfigError(f"{key}.shares", [], f"needs at least one value here, in {key}.shots or in {key}.lists")
    for file in config.lists:
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"{key}.lists", config.lists, f"no such file: {file}")
        labelled = np.any([has_label(images, name) for name in images.labels], axis=0).nonzero()[0].tolist()
        listed_rows(Path(file).expanduser(), [images.name(index) for index in labelled], f"{key}.lists")
    names = [name for name, _ in amounts(config)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{key}.lists", config.lists, f"two results would be named {name}; rename a file")


def draws(
    config: FewLabelsConfig, key: str, ctx: EvalContext, train: Features, name: str, amount: Amount
) -> list[Tensor]:
    """The labelled rows of ``train`` in each draw, for label set ``name``; a list is a single draw."""
    if isinstance(amount, Path):
        row_of = row_by_index(train, len(ctx.data.source.train))
        rows = row_of[listed_rows(amount, _names(ctx.data.source.train), f"{key}.lists")]
        return [rows[rows >= 0]]  # without unreadable images
    return [draw_rows(train.labels[name], amount, ctx.seed, draw) for draw in range(config.draws)]


def draw_rows(labels: Tensor, amount: float | int, seed: int, draw: int) -> Tensor:
    """Draws rows to label: a number or fraction of each class, at least one; [m], ascending.

    Args:
        labels: [n] classes.
        amount: a fraction below 1, or a number of images per class.
        seed: seed of the draws.
        draw: number of the draw.
    """
    order = torch.from_numpy(shuffled(seed, Stream.LABELLED_IMAGES, draw, len(labels)))
    rows = []
    for label in labels.unique().tolist():
        members = order[labels[order] == label]
        rows.append(members[: max(round(amount * len(members)), 1) if amount < 1 else int(amount)])
    return torch.cat(rows).sort().values


def listed_rows(file: Path, names: list[str], key: str) -> Tensor:
    """The indices in ``names`` of the images listed in ``file``, one per line: names, or ends of paths.

    Raises:
        ConfigError: if a line matches none or several of ``names``, or the list is empty; it names ``key``.
    """
    lines = [line.strip() for line in read_text(file, errors="surrogateescape").splitlines()]
    listed = [line for line in lines if line]
    found = matching(listed, names)
    for line, rows in zip(listed, found, strict=True):
        matches = len(rows)
        if matches != 1:
            problem = f"{line} is {'no' if not matches else 'the name of more than one'} training image with a label"
            raise ConfigError(key, file, problem + ("; give the folder, too" if matches else ""))
    if not listed:
        raise ConfigError(key, file, "the list is empty")
    return torch.tensor(sorted({rows[0] for rows in found}))


def _names(images: Images) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def mean_over_draws(scores: list[MetricValue], images: int) -> tuple[MetricValue, dict[str, Any]]:
    """The mean over draws, with an interval for the choice of test images, and details: each draw, their deviation."""
    values = [score.value for score in scores]
    per_image = torch.stack([score.per_image for score in scores if score.per_image is not None]).mean(dim=0)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return MetricValue(float(np.mean(values)), per_image), {"images": images, "draws": values, "deviation": deviation}
