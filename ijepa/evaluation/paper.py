"""task=paper: results in the layout of the paper's tables, a line per method, followed by the paper's results."""

from pathlib import Path
from typing import NamedTuple

from ijepa.evaluation import specs
from ijepa.evaluation.tasks import ModelResults, result_key
from ijepa.util.files import write_text
from ijepa.util.tables import TextTable

PAPER_RESULTS: dict[str, dict[str, float]] = {
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
"""Paper, tables 1 to 4 and 15, in %, by method: linear probes by data set; ImageNet with 1 % of the labels (1pct) and
with all (finetune); CLEVR (count, distance)."""
PAPER_DATA = {
    "imagenet": "ImageNet",
    "1pct": "ImageNet",
    "finetune": "ImageNet",
    "cifar100": "CIFAR-100",
    "places205": "Places205",
    "inat18": "iNat18",
    "count": "CLEVR",
    "distance": "CLEVR",
}
"""The data set of each key in `PAPER_RESULTS`."""
TRANSFER = ("cifar100", "places205", "inat18")
LOW_LEVEL = ("count", "distance")
ONE_PERCENT = ("1pct", "1percent")
"""Amounts of labels that are 1 %: drawn, or the published list of files."""
COLUMNS = (
    specs.LINEAR,
    *(specs.LOWSHOT.instance(amount=amount) for amount in ONE_PERCENT),
    *(specs.LOWSHOT_FINETUNE.instance(amount=amount) for amount in ONE_PERCENT),
    specs.FINETUNE,
)
"""Metrics of a label set. For count and distance, the tasks of that name replace them."""
DENSE = (specs.DEPTH[0], specs.SEGMENTATION[0])


class Column(NamedTuple):
    """A column: its `result_key`, its title, and its key in `PAPER_RESULTS` (empty: none)."""

    result: str
    title: str
    paper_key: str


def columns(rows: list[ModelResults], names: list[str], source: str) -> list[Column]:
    """The columns for which some row has a result.

    Args:
        rows: results, a row per model.
        names: label sets.
        source: ``data.source``; the paper's transfer results are shown for that data set only.
    """
    paper_keys: dict[str, str] = {}
    if source in TRANSFER:
        paper_keys = {"linear": source}
    elif len(names) == 1:  # the paper has no results on several label sets, such as shape and colour
        paper_keys = {
            "linear": "imagenet",
            "lowshot_finetune_1pct": "1pct",
            "lowshot_finetune_1percent": "1pct",
            "finetune": "finetune",
        }
    candidates = []
    for name in names:
        if name in LOW_LEVEL:
            candidates.append(Column(result_key(names, name, name), name, name))
            continue
        for spec in COLUMNS:
            title = f"{name}, {spec.short}" if len(names) > 1 else spec.short
            candidates.append(Column(result_key(names, name, spec.name), title, paper_keys.get(spec.name, "")))
    candidates += [Column(spec.name, spec.short, "") for spec in DENSE]
    return [column for column in candidates if any(column.result in row.results for row in rows)]


def lines(
    rows: list[ModelResults], columns: list[Column], intervals: dict[str, dict[str, tuple[float, float]]], figures: bool
) -> list[list[str]]:
    """A line per method: its name, and results in per cent with half the width of their 95 % intervals.

    With ``figures``, lines with the paper's results follow.
    """
    result = []
    for row in rows:
        cells = []
        for column in columns:
            if column.result not in row.results:
                cells.append("")
                continue
            low, high = intervals[row.name].get(column.result, (0.0, 0.0))
            margin = f" +-{50 * (high - low):.1f}" if high > low else ""
            cells.append(f"{100 * row.results[column.result].value:.1f}{margin}")
        result.append([row.name, *cells])
    if figures:
        for method, values in PAPER_RESULTS.items():
            cells = [f"{values[column.paper_key]:.1f}" if column.paper_key in values else "" for column in columns]
            if any(cells):
                sets = {PAPER_DATA[column.paper_key] for column in columns if column.paper_key in values}
                result.append([f"{method} (paper, {', '.join(sorted(sets))})", *cells])
    return result


def table(columns: list[Column], lines: list[list[str]], methods: int) -> TextTable:
    """A table for the terminal, with a rule after the first ``methods`` lines, before the paper's results."""
    result = TextTable("", *(column.title for column in columns))
    for number, line in enumerate(lines):
        result.add_row(*line, end_section=number == methods - 1)
    return result


def write(path: Path, columns: list[Column], lines: list[list[str]]) -> None:
    """Writes the table in Markdown."""
    titles = ["", *(column.title for column in columns)]
    cells = [titles, ["---", *("---:" for _ in columns)], *lines]
    write_text(path, "".join(f"| {' | '.join(line)} |\n" for line in cells).replace("+-", "±"))
