"""The columns of metrics.csv as charts: which belong together, what they are called, and how they are drawn."""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from ijepa.report.reading import AXES, RunRecord
from ijepa.sweeps.metric import SETTINGS

POINTS = 1200
"""Of a curve; of longer ones the least and the greatest value of each stretch are drawn."""

KNOWN = {
    "train/loss": ("Loss", "what is minimised, on training images"),
    "train/distance": ("Prediction error", "distance of predictions to their targets"),
    "train/variance": ("Variance term", "how far features are from spreading in every dimension"),
    "train/covariance": ("Covariance term", "how much dimensions tell the same"),
    "lr": ("Learning rate", ""),
    "weight_decay": ("Weight decay", ""),
    "momentum": ("Momentum", "of the target encoder's moving average"),
    "images_per_second": ("Throughput", "training images per second"),
    "health/rankme": ("RankMe", "effective rank of the target encoder's features; at most their width"),
    "health/effective_rank": ("Effective rank", "of the centred features: dimensions in which images differ"),
    "health/alpha_req": ("\u03b1-ReQ", "decay of the features' spectrum; near 1 is best, more is steeper"),
    "health/lidar": ("LiDAR", "rank of what tells images apart where their crops agree"),
    "health/std": ("Spread of features", "standard deviation over all tokens"),
    "health/std_across": ("Spread across images", "standard deviation at each fixed position"),
    "health/share": ("Share across images", "of the features' variance; the rest is position"),
    "health/norm": ("Length of features", "mean norm of a token"),
    "health/relative": ("Relative spread", "over the tokens' root mean square; 0: all the same"),
    "health/predictions_std": ("Spread of predictions", "standard deviation over all tokens"),
    "health/predictions_std_across": ("Predictions across images", "their standard deviation at each fixed position"),
    "health/predictions_share": ("Predictions, share across images", "of their variance; the rest is position"),
    "health/predictions_norm": ("Length of predictions", "mean norm of a token"),
    "health/predictions_relative": ("Relative spread of predictions", "over their root mean square"),
    "health/cosine": ("Cosine", "of predictions and targets"),
    "health/correlation": ("Correlation", "of predictions and targets across images; 0 knows nothing of them"),
    "health/gradient_norm": ("Gradient norm", ""),
    "health/encoder_distance": ("Distance of the encoders", "context to target encoder, relative"),
}
"""Title and explanation by column."""
HEALTH = {
    "Rank": ("rankme", "effective_rank", "alpha_req", "lidar"),
    "Spread of the target encoder's features": ("std", "std_across", "share", "norm", "relative"),
    "Predictions": ("predictions_std", "predictions_std_across", "predictions_share", "predictions_norm",
                    "predictions_relative", "cosine", "correlation"),
    "Optimisation": ("gradient_norm", "encoder_distance"),
}  # fmt: skip
PROBES = {"knn": "k-NN", "linear": "Linear probe"}
"""What the health panel reads from the features along the run."""
SCHEDULES = ("lr", "weight_decay", "momentum", "images_per_second")
SHARES = ("knn", "logistic", "linear", "attentive", "count", "distance", "lowshot", "finetune", "retrieval",
          "depth_delta", "segmentation")  # fmt: skip
"""What the names of results in per cent begin with."""


@dataclass(frozen=True)
class Chart:
    """A column, drawn.

    Attributes:
        column: of metrics.csv.
        title: in the field's words.
        about: a few words more.
        unit: "%" where values are shares, else "".
        log: whether the axis is logarithmic to begin with.
    """

    column: str
    title: str
    about: str = ""
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class ChartGroup:
    """Charts that belong together."""

    title: str
    charts: list[Chart]
    minor: bool = False


def groups(runs: list[RunRecord]) -> tuple[list[ChartGroup], list[ChartGroup]]:
    """Of health, and of training, those that some run has logged."""
    columns = list(dict.fromkeys(
        column for run in runs for column, values in run.metrics.items()
        if column not in AXES and any(value is not None for value in values)
    ))  # fmt: skip
    left = dict.fromkeys(columns)

    def take(title: str, wanted: list[str]) -> ChartGroup:
        return ChartGroup(title, [chart(column) for column in wanted if left.pop(column, True) is None])

    health = [take(title, [f"health/{name}" for name in names]) for title, names in HEALTH.items()]
    probes = [column for column in left if column.startswith("health/") and split(column)[1] in PROBES]
    health.append(take("Read from the features along the run", probes))
    health.append(take("Further measures", [column for column in left if column.startswith("health/")]))
    known = [column for column in KNOWN if column.startswith("train/")]
    training = [take("Loss", [*known, *(column for column in left if column.startswith("train/"))])]
    results = [column for column in left if column.startswith("val/") and split(column)[1] not in SETTINGS]
    for label_set in dict.fromkeys(split(column)[0] for column in results):
        title = "Validation" + (f": {label_set}" if label_set else "")
        training.append(take(title, [column for column in results if split(column)[0] == label_set]))
    training.append(take("Schedule and speed", list(SCHEDULES)))
    further = take("Further columns", list(left))
    training.append(replace(further, minor=True))
    return [group for group in health if group.charts], [group for group in training if group.charts]


def chart(column: str) -> Chart:
    """How a column is drawn."""
    if column in KNOWN:
        return Chart(column, *KNOWN[column], unit="%" if column.endswith("share") else "")
    label_set, name = split(column)
    if column.startswith("health/") and name in PROBES:
        return Chart(column, PROBES[name] + (f", {label_set}" if label_set else ""), "held-out images", "%")
    if column.startswith("val/"):
        about = label_set if name in SETTINGS else ""
        return Chart(column, metric_title(name), about, unit(name), name in SETTINGS)
    return Chart(column, column.removeprefix("health/").removeprefix("train/").replace("_", " "), "")


def split(column: str) -> tuple[str, str]:
    """Label set, "" without, and name of a column or result: val/count/knn20 is knn20 of count."""
    inner = column.removeprefix("val/").removeprefix("health/")
    label_set, _, name = inner.rpartition("/")
    return label_set, name


def metric_title(name: str) -> str:
    """A result in the field's words: knn20 is k-NN, k = 20."""
    if found := re.fullmatch(r"knn(\d+)", name):
        return f"k-NN, k = {found[1]}"
    if found := re.fullmatch(r"retrieval(\d+)", name):
        return f"Retrieval, {found[1]} neighbours"
    if found := re.fullmatch(r"lowshot(_finetune)?_(.+)", name):
        amount = re.sub(r"shot$", " per class", re.sub(r"pct$", " %", found[2]))
        return f"{'Fine-tuning, few labels' if found[1] else 'Few labels'}: {amount}"
    titles = {"logistic": "Logistic regression", "logistic_l2": "Logistic regression, chosen penalty",
              "linear": "Linear probe", "attentive": "Attentive probe", "finetune": "Fine-tuning",
              "depth_rmse": "Depth, RMSE", "depth_delta1": "Depth, \u03b4 < 1.25", "count": "Count",
              "distance": "Distance", "segmentation_miou": "Segmentation, mIoU",
              "segmentation_accuracy": "Segmentation, accuracy"}  # fmt: skip
    return titles.get(name, name.replace("_", " "))


def unit(name: str) -> str:
    """Of a result: "%", or "" where it is no share."""
    return "%" if name.startswith(SHARES) and name not in SETTINGS else ""


def data(run: RunRecord, charts: list[Chart]) -> dict[str, Any]:
    """What the page draws of a run: axes at the rows that are drawn, and by column the rows and values of its curve."""
    drawn = {item.column: _thinned(run.metrics.get(item.column, [])) for item in charts}
    rows = sorted({row for places in drawn.values() for row in places})
    place = {row: index for index, row in enumerate(rows)}
    series = {}
    for column, places in drawn.items():
        if places:
            values = [_rounded(run.metrics[column][row]) for row in places]
            series[column] = {"at": [place[row] for row in places], "values": values}
    axes = {axis: [_rounded(run.metrics[axis][row]) for row in rows] for axis in AXES if axis in run.metrics}
    verdicts = [{"step": verdict.step, "verdict": verdict.verdict, "kind": verdict.kind} for verdict in run.verdicts]
    return {"name": run.name, "steps": run.steps, "axes": axes, "series": series, "verdicts": verdicts}


def _thinned(values: list[float | None]) -> list[int]:
    """The rows of a curve that are drawn; those without a finite value stay."""
    rows = [row for row, value in enumerate(values) if value is not None]
    if len(rows) <= POINTS:
        return rows
    stretch = math.ceil(2 * len(rows) / POINTS)
    kept = {rows[0], rows[-1]}
    for start in range(0, len(rows), stretch):
        part = rows[start : start + stretch]
        finite = [row for row in part if math.isfinite(values[row] or 0)]
        kept.update(next(([row] for row in part if row not in finite), []))
        if finite:
            kept |= {min(finite, key=lambda row: values[row] or 0), max(finite, key=lambda row: values[row] or 0)}
    return sorted(kept)


def _rounded(value: float | None) -> float | None:
    """Seven digits, or a whole number; None for what JSON has no word for."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e10 else float(f"{value:.7g}")
