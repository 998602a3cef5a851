"""The metrics of the tasks, and the spec of any column or result by its name. Imports no torch."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ijepa.health.specs import MEASURES
from ijepa.training import specs as training
from ijepa.util.metric_spec import MetricSpec, find, from_plain, spaced

KNN = MetricSpec("knn{k}", "k-NN, k = {k}", "%", "higher", series="k-NN")
LOGISTIC = MetricSpec("logistic", "Logistic regression", "%", "higher")
LOGISTIC_L2 = MetricSpec("logistic_l2", "Logistic regression, chosen penalty", "", None)
LINEAR = MetricSpec("linear", "Linear probe", "%", "higher", short="linear")
COUNT = MetricSpec("count", "Count", "%", "higher", "linear probe", short="count")
DISTANCE = MetricSpec("distance", "Distance", "%", "higher", "linear probe", short="distance")
ATTENTIVE = MetricSpec("attentive", "Attentive probe", "%", "higher")
LOWSHOT = MetricSpec("lowshot_{amount}", "Few labels: {amount}", "%", "higher", short="{amount}")
LOWSHOT_FINETUNE = MetricSpec(
    "lowshot_finetune_{amount}", "Fine-tuning, few labels: {amount}", "%", "higher", short="{amount}, fine-tuned"
)
FINETUNE = MetricSpec("finetune", "Fine-tuning", "%", "higher", short="fine-tuned")
RETRIEVAL = MetricSpec("retrieval{neighbours}", "Retrieval, {neighbours} neighbours", "%", "higher")
DEPTH = (
    MetricSpec("depth_delta1", "Depth, \u03b4 < 1.25", "%", "higher", short="depth, delta_1"),
    MetricSpec("depth_rmse", "Depth, RMSE", "", "lower"),
)
SEGMENTATION = (
    MetricSpec("segmentation_miou", "Segmentation, mIoU", "%", "higher", short="segmentation, mIoU"),
    MetricSpec("segmentation_accuracy", "Segmentation, accuracy", "%", "higher"),
)
RESULTS = (
    KNN, LOGISTIC, LOGISTIC_L2, LINEAR, COUNT, DISTANCE, ATTENTIVE, LOWSHOT_FINETUNE, LOWSHOT, FINETUNE, RETRIEVAL,
    *DEPTH, *SEGMENTATION,
)  # fmt: skip
"""Of the tasks that come with this software; of two families that a name fits, the narrower comes first."""
HEADLINE = MetricSpec("headline", "Mean headline", "%", "higher", "the first task's main metric, mean over label sets")
COLUMNS = (*training.LOSS, *training.SCHEDULE, *training.TOTALS, *training.PROGRESS, HEADLINE)
"""Those whose names are the same in every run."""

Specs = Mapping[str, MetricSpec]
"""Specs of tasks from outside, by name."""


def lookup(column: str, outside: Specs | None = None) -> MetricSpec:
    """The spec of a column of metrics.csv, or of a result, with or without its label set.

    What nobody has described is titled by its name: a part of the loss is minimised, a result maximised.

    Args:
        column: ``train/loss``, ``health/count/knn``, ``val/count/knn20``, ``count/knn20``, ``headline``, ...
        outside: see `Specs`.
    """
    known = outside or {}
    if column in known:
        return known[column]
    found = find(column, COLUMNS)
    if found is not None:
        return found
    _, name = split(column)
    if column.startswith("train/"):
        return MetricSpec(column, spaced(column.removeprefix("train/")), "", "lower")
    if column.startswith("health/"):
        found = find(name, MEASURES) or MetricSpec(name, spaced(name), "", None)
        return replace(found, name=column)
    return known.get(name) or find(name, RESULTS) or MetricSpec(name, spaced(name), "", "higher")


def split(column: str) -> tuple[str, str]:
    """Label set, "" without, and name of a column or result: val/count/knn20 is knn20 of count."""
    inner = column.removeprefix("val/").removeprefix("health/")
    label_set, _, name = inner.rpartition("/")
    return label_set, name


def undescribed(specs: Iterable[MetricSpec]) -> dict[str, dict[str, Any]]:
    """Those that `lookup` would not find by their names, for the files of a run, where reports find them."""
    return {spec.name: spec.plain() for spec in specs if lookup(spec.name) != spec}


def described(*written: Any) -> dict[str, MetricSpec]:
    """All that `undescribed` has written; whatever else it is tells nothing."""
    specs: dict[str, MetricSpec] = {}
    for found in written:
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            specs |= {str(name): from_plain(values) for name, values in found.items()}
    return specs
