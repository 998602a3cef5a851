"""task=paper: results in the layout of the paper's tables, a line per method, with the paper's own below."""

from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from ijepa.evaluation import specs
from ijepa.evaluation.tasks import ModelResults, key
from ijepa.util.files import write_text

Figures = dict[str, float]
FIGURES: dict[str, Figures] = {
    "I-JEPA B/16": {"imagenet": 72.9},
    "I-JEPA L/16": {"imagenet": 77.5, "1pct": 69.4},
    "I-JEPA H/14": {
        "imagenet": 79.3, "1pct": 73.3, "cifar100": 87.5, "places205": 58.4, "inat18": 47.6, "count": 86.7,
        "distance": 72.4,
    },
    "I-JEPA H/16 at 448": {"imagenet": 81.1, "1pct": 77.3, "finetune": 87.1},
    "data2vec L/16": {
        "imagenet": 77.3, "1pct": 73.3, "cifar100": 81.6, "places205": 54.6, "inat18": 28.1, "count": 85.3,
        "distance": 71.3,
    },
    "MAE H/14": {
        "imagenet": 77.2, "1pct": 71.5, "cifar100": 77.3, "places205": 55.0, "inat18": 32.9, "count": 90.5,
        "distance": 72.4,
    },
    "DINO B/8, with augmented views": {
        "imagenet": 80.1, "1pct": 70.0, "cifar100": 84.9, "places205": 57.9, "inat18": 55.9, "count": 86.6,
        "distance": 53.4,
    },
    "iBOT L/16, with augmented views": {
        "imagenet": 81.0, "cifar100": 88.3, "places205": 60.4, "inat18": 57.3, "count": 85.7, "distance": 62.8,
    },
}  # fmt: skip
"""Paper, tables 1 to 4 and 15, in %: linear probes by data set, 1 % of ImageNet's labels, all of them, and CLEVR."""
ORIGINS = {
    "imagenet": "ImageNet",
    "1pct": "ImageNet",
    "finetune": "ImageNet",
    "cifar100": "CIFAR-100",
    "places205": "Places205",
    "inat18": "iNat18",
    "count": "CLEVR",
    "distance": "CLEVR",
}
"""The images that a figure of the paper is about, whatever is evaluated here."""
TRANSFER = ("cifar100", "places205", "inat18")
LOW_LEVEL = ("count", "distance")
ONE_PERCENT = ("1pct", "1percent")
"""Of the labels: drawn, or the published list."""
COLUMNS = (
    specs.LINEAR,
    *(specs.LOWSHOT.named(amount=amount) for amount in ONE_PERCENT),
    *(specs.LOWSHOT_FINETUNE.named(amount=amount) for amount in ONE_PERCENT),
    specs.FINETUNE,
)
"""Of a label set. Count and distance are read by the protocols of that name instead."""
DENSE = (specs.DEPTH[0], specs.SEGMENTATION[0])


class Column(NamedTuple):
    """A result: what it is called here, its title, and what it is called among the paper's."""

    result: str
    title: str
    figure: str


def columns(rows: list[ModelResults], names: list[str], source: str) -> list[Column]:
    """Those that some row has a result for."""
    figures: dict[str, str] = {}
    if source in TRANSFER:
        figures = {"linear": source}
    elif len(names) == 1:  # classes: of several label sets, shape and colour for example, the paper says nothing
        figures = {
            "linear": "imagenet",
            "lowshot_finetune_1pct": "1pct",
            "lowshot_finetune_1percent": "1pct",
            "finetune": "finetune",
        }
    found = []
    for name in names:
        if name in LOW_LEVEL:
            found.append(Column(key(names, name, name), name, name))
            continue
        for spec in COLUMNS:
            shown = f"{name}, {spec.short}" if len(names) > 1 else spec.short
            found.append(Column(key(names, name, spec.name), shown, figures.get(spec.name, "")))
    found += [Column(spec.name, spec.short, "") for spec in DENSE]
    return [column for column in found if any(column.result in row.results for row in rows)]


def lines(
    rows: list[ModelResults], shown: list[Column], intervals: dict[str, dict[str, tuple[float, float]]], figures: bool
) -> list[list[str]]:
    """A line per method: its name, then its results in per cent with half the width of their 95 % intervals."""
    found = []
    for row in rows:
        cells = []
        for column in shown:
            if column.result not in row.results:
                cells.append("")
                continue
            low, high = intervals[row.name].get(column.result, (0.0, 0.0))
            between = f" +-{50 * (high - low):.1f}" if high > low else ""
            cells.append(f"{100 * row.results[column.result].value:.1f}{between}")
        found.append([row.name, *cells])
    if figures:
        for method, theirs in FIGURES.items():
            cells = [f"{theirs[column.figure]:.1f}" if column.figure in theirs else "" for column in shown]
            if any(cells):
                sets = {ORIGINS[column.figure] for column in shown if column.figure in theirs}
                found.append([f"{method} (paper, {', '.join(sorted(sets))})", *cells])
    return found


def table(shown: list[Column], found: list[list[str]], methods: int) -> Table:
    """For the terminal; the paper's lines, after the first so many, apart."""
    made = Table("", *(column.title for column in shown))
    for number, line in enumerate(found):
        made.add_row(*line, end_section=number == methods - 1)
    return made


def write(path: Path, shown: list[Column], found: list[list[str]]) -> None:
    """The same in Markdown."""
    titles = ["", *(column.title for column in shown)]
    cells = [titles, ["---", *("---:" for _ in shown)], *found]
    write_text(path, "".join(f"| {' | '.join(line)} |\n" for line in cells).replace("+-", "±"))
