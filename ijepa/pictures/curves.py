"""Learning curves, from metrics.csv."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ijepa.pictures.sheet import LINES, SMALL, TITLE
from ijepa.run_folder.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = dict[str, NDArray[np.float64]]
"""What metrics.csv holds, by column; NaN in empty cells."""
TOTALS = ("step", "images", "epoch", "flops", "seconds")
"""What other columns are drawn against."""
NAMES = {
    "loss": "loss", "lr": "learning rate", "weight_decay": "weight decay", "momentum": "momentum",
    "images_per_second": "images per second", "rankme": "RankMe", "lidar": "LiDAR", "std": "standard deviation",
    "std_across": "std. across images", "share": "share across images", "relative": "relative spread",
    "predictions_std": "std. of predictions", "predictions_std_across": "predictions across images",
    "predictions_share": "share of predictions", "predictions_norm": "norm of predictions",
    "predictions_relative": "predictions, relative", "alpha_req": "alpha-ReQ", "encoder_distance": "encoders' distance",
    "logistic": "logistic regression", "linear": "linear probe", "knn": "k-NN",
}  # fmt: skip
"""Titles, where a column's name is none."""
ACCURACIES = ("knn", "logistic", "linear", "attentive", "count", "distance", "lowshot", "finetune", "retrieval",
              "depth_delta", "segmentation")  # fmt: skip
"""What the names of shares begin with, which are drawn in per cent."""
PROBES = ("knn", "linear")
"""Those of the health panel."""
HIDDEN = ("val/logistic_l2",)
"""What tells nothing along a run."""
PANEL = (1.75, 1.35)
"""Inches of a small multiple."""
ACROSS = 4
"""Small multiples side by side."""


def read(path: Path) -> Columns:
    """The columns of a metrics.csv; raises UserError when it is broken."""
    return {name: np.array(cells, dtype=np.float64) for name, cells in read_metrics(path).numbers().items()}


def curves(columns: Columns) -> "Figure":
    """Everything that a run has logged against its step, a small multiple per quantity, a line per label set.

    Cells that are empty are skipped: a line joins the values that there are. What has one value only is no curve.
    Accuracies are in per cent.

    Args:
        columns: from `read`.
    """
    return _drawn(columns, "step", sorted((name for name in columns if name not in (*TOTALS, *HIDDEN)), key=_rank))


def compute(columns: Columns) -> "Figure | None":
    """Accuracies against the FLOPs that they took, as `curves`; None where there are not two of any."""
    names = [name for name in columns if _is_accuracy(name) and _points(columns, "flops", name).sum() > 1]
    return _drawn(columns, "flops", names) if names else None


def _drawn(columns: Columns, against: str, names: list[str]) -> "Figure":
    panels: dict[str, dict[str, str]] = {}
    for name in names:
        if _points(columns, against, name).sum() > 1:
            panel, line = _place(name)
            panels.setdefault(panel, {})[line] = name
    figure, axes = _multiples(len(panels))
    for axis, (panel, lines) in zip(axes, panels.items(), strict=False):
        _panel(axis, columns, against, panel, lines)
    return figure


def _points(columns: Columns, against: str, name: str) -> NDArray[np.bool_]:
    """Which rows have both."""
    return np.isfinite(columns[name]) & np.isfinite(columns.get(against, np.full_like(columns[name], np.nan)))


def _panel(axis: "Axes", columns: Columns, against: str, title: str, lines: dict[str, str]) -> None:
    for number, (label, name) in enumerate(lines.items()):
        values = columns[name] * (100 if _is_accuracy(name) else 1)
        known = _points(columns, against, name)
        style = {"marker": "o", "markersize": 2.2} if known.sum() <= 40 else {}
        axis.plot(columns[against][known], values[known], color=LINES[number % len(LINES)], linewidth=1.0,
                  linestyle="-" if number < len(LINES) else "--", label=label, **style)  # type: ignore[arg-type]  # fmt: skip
    percent = ", %" if any(map(_is_accuracy, lines.values())) else ""
    if against == "step":
        axis.set_xlim(0, 1.02 * np.nanmax(columns[against]))
    axis.set_title(title + percent, fontsize=TITLE, pad=3)
    axis.set_xlabel("FLOPs" if against == "flops" else against, fontsize=SMALL, labelpad=1)
    if len(lines) > 1:
        axis.legend(fontsize=SMALL - 1, frameon=False, handlelength=1.0, borderaxespad=0.2, labelspacing=0.2)


def _multiples(count: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    across = max(min(count, ACROSS), 1)
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


def _place(name: str) -> tuple[str, str]:
    """The title of a column's small multiple, and its line there: val/count/knn20 is count's line among k-NN."""
    group, _, rest = name.rpartition("/")
    origin, _, label_set = group.partition("/")
    title = NAMES.get(rest, rest.replace("_", " "))
    line = label_set or title
    if rest.startswith("knn") and rest[3:].isdecimal():  # a line per k where there is but one label set
        title, line = (f"{rest[3:]}-NN", label_set) if label_set else ("k-NN", f"k = {rest[3:]}")
    if origin == "health" and _is_accuracy(name):
        title += " along the run"
    return title, line


def _is_accuracy(name: str) -> bool:
    origin, _, rest = name.partition("/")
    metric = rest.rpartition("/")[2]
    if origin == "health":
        return metric in PROBES
    return origin == "val" and metric.startswith(ACCURACIES) and name not in HIDDEN


def _rank(name: str) -> int:
    """The loss and its parts first, then accuracies, health, and at last what was planned."""
    origin = name.partition("/")[0]
    if origin == "train":
        return 0
    if _is_accuracy(name):
        return 1
    return {"health": 2, "val": 3}.get(origin, 4)
