"""Figures of learning curves, from metrics.csv."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ijepa.pictures.sheet import LINES, SMALL, TITLE
from ijepa.run_folder.metrics import read_metrics
from ijepa.util.metric_spec import PERCENT, MetricSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = dict[str, NDArray[np.float64]]
"""The columns of metrics.csv; empty cells are NaN."""
Lookup = Callable[[str], MetricSpec]
TOTALS = ("step", "images", "epoch", "flops", "seconds")
"""Columns that are x axes, not curves."""
PANEL = (1.75, 1.35)
"""Width and height of a small multiple, in inches."""
TITLE_LENGTH = 24
"""Characters that fit above a small multiple; longer titles are smaller."""
MAX_ACROSS = 4
"""Small multiples per row."""


def read(path: Path) -> Columns:
    """The columns of a metrics.csv; raises UserError if it is broken."""
    return {name: np.array(cells, dtype=np.float64) for name, cells in read_metrics(path).numbers().items()}


def curves(columns: Columns, lookup: Lookup) -> "Figure":
    """All columns of a run against the step: a small multiple per quantity, a line per label set.

    Lines skip empty cells. Columns with a single value are left out. Accuracies are in per cent.

    Args:
        columns: from `read`.
        lookup: from a column's name to its spec.
    """
    specs = {name: lookup(name) for name in columns if name not in TOTALS}
    shown = {name: spec for name, spec in specs.items() if spec.better or not name.startswith("val/")}
    return _figure(columns, "step", dict(sorted(shown.items(), key=lambda item: _rank(*item))))


def compute(columns: Columns, lookup: Lookup) -> "Figure | None":
    """Accuracies against training FLOPs, as in `curves`; None if no accuracy has two values."""
    specs = {name: lookup(name) for name in columns if _has_both(columns, "flops", name).sum() > 1}
    specs = {name: spec for name, spec in specs.items() if _is_accuracy(spec)}
    return _figure(columns, "flops", specs) if specs else None


def _figure(columns: Columns, against: str, specs: dict[str, MetricSpec]) -> "Figure":
    panels: dict[str, dict[str, str]] = {}
    for name, spec in specs.items():
        if _has_both(columns, against, name).sum() > 1:
            title, line = _title_and_line(name, spec)
            panels.setdefault(title, {})[line] = name
    figure, axes = _multiples(len(panels))
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        unit = specs[next(iter(lines.values()))].unit
        _panel(axis, columns, against, f"{title}, {unit}" if unit else title, lines, 100 if unit == PERCENT else 1)
    return figure


def _has_both(columns: Columns, against: str, name: str) -> NDArray[np.bool_]:
    """Which rows have a value in both columns: [rows]."""
    return np.isfinite(columns[name]) & np.isfinite(columns.get(against, np.full_like(columns[name], np.nan)))


def _panel(axis: "Axes", columns: Columns, against: str, title: str, lines: dict[str, str], scale: int) -> None:
    for number, (label, name) in enumerate(lines.items()):
        values = columns[name] * scale
        valid = _has_both(columns, against, name)
        style = {"marker": "o", "markersize": 2.2} if valid.sum() <= 40 else {}
        axis.plot(columns[against][valid], values[valid], color=LINES[number % len(LINES)], linewidth=1.0,
                  linestyle="-" if number < len(LINES) else "--", label=label, **style)  # type: ignore[arg-type]  # fmt: skip
    if against == "step":
        axis.set_xlim(0, 1.02 * np.nanmax(columns[against]))
    axis.set_title(title, fontsize=TITLE * min(1.0, TITLE_LENGTH / len(title)), pad=3)
    axis.set_xlabel("FLOPs" if against == "flops" else against, fontsize=SMALL, labelpad=1)
    if len(lines) > 1:
        axis.legend(fontsize=SMALL - 1, frameon=False, handlelength=1.0, borderaxespad=0.2, labelspacing=0.2)


def _multiples(count: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    across = max(min(count, MAX_ACROSS), 1)
    down = max(-(-count // across), 1)
    figure = Figure(figsize=(across * PANEL[0], down * PANEL[1]), layout="constrained")
    axes: list[Any] = list(figure.subplots(down, across, squeeze=False).flat)
    for number, axis in enumerate(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_linewidth(0.6)
        axis.tick_params(labelsize=SMALL - 1, length=2, width=0.5, pad=2)
        axis.xaxis.get_offset_text().set_fontsize(SMALL - 1)
        axis.yaxis.get_offset_text().set_fontsize(SMALL - 1)
        axis.ticklabel_format(axis="both", scilimits=(-3, 4), useMathText=True)
        axis.locator_params(axis="both", nbins=4)
        axis.set_visible(number < count)
    return figure, axes


def _title_and_line(name: str, spec: MetricSpec) -> tuple[str, str]:
    """The title of a column's small multiple, and its line: val/count/knn20 is the line "count" in "k-NN, k = 20".

    With a single label set, the lines are the members of a series: "k-NN" has a line per k.
    """
    label_set = name.partition("/")[2].rpartition("/")[0]
    if spec.series and not label_set:
        return spec.series, spec.title.removeprefix(f"{spec.series}, ")
    return spec.title, label_set or spec.title


def _is_accuracy(spec: MetricSpec) -> bool:
    return spec.is_fraction and spec.better == "higher"


def _rank(name: str, spec: MetricSpec) -> int:
    """Sort key: the loss and its parts, then accuracies, health, other results, and the schedule."""
    origin = name.partition("/")[0]
    if origin == "train":
        return 0
    if _is_accuracy(spec):
        return 1
    return {"health": 2, "val": 3}.get(origin, 4)
