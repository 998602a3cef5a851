"""Chooses the few labelled images: a fraction of each class, a number per class, or those listed in a file."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ijepa.config import Lowshot, LowshotFinetune
from ijepa.data.sets import Images
from ijepa.evaluation.augmentation import rows_of
from ijepa.evaluation.context import EvalContext
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import Measured
from ijepa.util.errors import ConfigError
from ijepa.util.randomness import Stream, shuffled

Amount = float | int | Path
"""A share of each class (below 1), images of each class, or a file of names."""
Few = Lowshot | LowshotFinetune


def amounts(task: Few) -> Iterator[tuple[str, Amount]]:
    """The amounts of labels, as the names of their results end: 1pct, 5shot, a file's name."""
    for share in task.shares:
        yield f"{100 * share:g}pct", share
    for count in task.shots:
        yield f"{count}shot", count
    for file in task.lists:
        yield Path(file).stem, Path(file).expanduser()


def validate(task: Few, key: str, images: Images) -> None:
    """Refuses a task without any amount, and lists that are not of these training images; raises ConfigError."""
    if not task.shares + task.shots + task.lists:
        raise ConfigError(f"{key}.shares", [], f"needs at least one value here, in {key}.shots or in {key}.lists")
    for file in task.lists:
        if not Path(file).expanduser().is_file():
            raise ConfigError(f"{key}.lists", task.lists, f"no such file: {file}")
        listed(Path(file).expanduser(), _names(images), f"{key}.lists")
    names = [name for name, _ in amounts(task)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{key}.lists", task.lists, f"two results would be named {name}; rename a file")


def draws(task: Few, key: str, ctx: EvalContext, train: Features, name: str, amount: Amount) -> list[Tensor]:
    """The labelled rows of ``train`` in each draw, by the classes of label set ``name``; a file gives one."""
    if isinstance(amount, Path):
        rows = rows_of(train, len(ctx.data.source.train))
        found = rows[listed(amount, _names(ctx.data.source.train), f"{key}.lists")]
        return [found[found >= 0]]  # without those that cannot be read
    return [labelled(train.labels[name], amount, ctx.seed, draw) for draw in range(task.draws)]


def labelled(labels: Tensor, amount: float | int, seed: int, draw: int) -> Tensor:
    """Draws labelled images: a number or fraction of each class, at least one; [m] indices.

    Args:
        labels: [n] classes.
        amount: a fraction below 1, or a number of images per class.
        seed: seed of the draws.
        draw: number of the draw.
    """
    order = torch.from_numpy(shuffled(seed, Stream.LABELLED_IMAGES, draw, len(labels)))
    chosen = []
    for label in labels.unique().tolist():
        members = order[labels[order] == label]
        chosen.append(members[: max(round(amount * len(members)), 1) if amount < 1 else int(amount)])
    return torch.cat(chosen).sort().values


def listed(file: Path, names: list[str], key: str) -> Tensor:
    """The rows of the images listed in ``file``, one per line: names, or ends of paths.

    Raises:
        ConfigError: if a line matches none or several of ``names``.
    """
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    wanted = [Path(line).parts for line in lines if line]
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    lengths = {len(parts) for parts in wanted}
    for row, name in enumerate(names):
        parts = Path(name).parts
        for length in lengths:
            rows[parts[-length:]].append(row)
    for parts in wanted:
        found = len(rows.get(parts, []))
        if found != 1:
            line = "/".join(parts)
            problem = f"{line} is {'no' if not found else 'the name of more than one'} training image"
            raise ConfigError(key, file, problem + ("; give the folder, too" if found else ""))
    if not wanted:
        raise ConfigError(key, file, "the list is empty")
    return torch.tensor(sorted({rows[parts][0] for parts in wanted}))


def _names(images: Images) -> list[str]:
    return [images.name(index) for index in range(len(images))]


def over(scores: list[Measured], images: int) -> tuple[Measured, dict[str, Any]]:
    """The mean over draws, whose interval is that of images; and what tells the draws apart."""
    values = [measured.value for measured in scores]
    each = torch.stack([measured.each for measured in scores if measured.each is not None]).mean(dim=0)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Measured(float(np.mean(values)), each), {"images": images, "draws": values, "deviation": deviation}
