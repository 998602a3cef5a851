"""The metrics of the tasks, and the spec of any column or result by its name. Imports no torch."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ijepa.health.specs import MEASURES
from ijepa.training import specs as training
from ijepa.util.metric_spec import MetricSpec, find_spec, from_plain, title_from_name

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
DECODE = (
    MetricSpec("decode_closer", "Samples closer to the truth than another's", "%", "higher", "distance of features"),
    MetricSpec("decode_closer_pixels", "Closer to the truth than another's, pixels", "%", "higher"),
    MetricSpec("decode_label", "Label read from samples", "%", "higher"),
    MetricSpec("decode_distance", "Distance to the truth, features", "", "lower"),
    MetricSpec("decode_rmse", "Distance to the truth, pixels", "", "lower"),
    MetricSpec("decode_variance", "Variance within a representation", "%", "lower", "of that among representations"),
    MetricSpec("decode_nearest", "Distance to the nearest training block", "", "higher", "pixels"),
    MetricSpec("decode_fid", "Fr\u00e9chet distance", "", "lower"),
    MetricSpec("decode_lpips", "LPIPS", "", "lower"),
)
RESULTS = (
    KNN, LOGISTIC, LOGISTIC_L2, LINEAR, COUNT, DISTANCE, ATTENTIVE, LOWSHOT_FINETUNE, LOWSHOT, FINETUNE, RETRIEVAL,
    *DEPTH, *SEGMENTATION, *DECODE,
)  # fmt: skip
"""Metrics of the built-in tasks; the first match counts, so a narrower family comes before a wider one."""
HEADLINE = MetricSpec("headline", "Mean headline", "%", "higher", "the first task's main metric, mean over label sets")
COLUMNS = (*training.LOSS, *training.SCHEDULE, *training.TOTALS, *training.PROGRESS, training.SKIPPED, HEADLINE)
"""Columns of metrics.csv whose names are the same in every run."""

Specs = Mapping[str, MetricSpec]
"""Specs of custom tasks' metrics, by name."""


def lookup(column: str, custom: Specs | None = None) -> MetricSpec:
    """The spec of a column of metrics.csv, or of a result, with or without its label set.

    A metric without a spec gets its name as title; a part of the loss is minimised, a result maximised.

    Args:
        column: ``train/loss``, ``health/count/knn``, ``val/count/knn20``, ``count/knn20``, ``headline``, ...
        custom: specs that take precedence.
    """
    custom = custom or {}
    if column in custom:
        return custom[column]
    spec = find_spec(column, COLUMNS)
    if spec is not None:
        return spec
    _, name = split(column)
    if column.startswith("train/"):
        return MetricSpec(column, title_from_name(column.removeprefix("train/")), "", "lower")
    if column.startswith("health/"):
        spec = find_spec(name, MEASURES) or MetricSpec(name, title_from_name(name), "", None)
        return replace(spec, name=column)
    return custom.get(name) or find_spec(name, RESULTS) or MetricSpec(name, title_from_name(name), "", "higher")


def split(column: str) -> tuple[str, str]:
    """Label set ("" if none) and metric of a column or result: val/count/knn20 is ("count", "knn20")."""
    inner = column.removeprefix("val/").removeprefix("health/")
    label_set, _, name = inner.rpartition("/")
    return label_set, name


def plain_custom_specs(specs: Iterable[MetricSpec]) -> dict[str, dict[str, Any]]:
    """The specs that `lookup` does not find by name, as plain dicts by name; a run stores them for reports."""
    return {spec.name: spec.plain() for spec in specs if lookup(spec.name) != spec}


def parse_custom_specs(*stored: Any) -> dict[str, MetricSpec]:
    """The specs in any number of outputs of `plain_custom_specs`, by name; anything else is ignored."""
    specs: dict[str, MetricSpec] = {}
    for item in stored:
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            specs |= {str(name): from_plain(values) for name, values in item.items()}
    return specs
