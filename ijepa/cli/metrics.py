"""The list of metrics in --help, with their better direction."""

import re

from ijepa.evaluation.specs import HEADLINE, RESULTS
from ijepa.health.specs import MEASURES
from ijepa.training import specs as training
from ijepa.util.metric_spec import MetricSpec

ARROWS = {"higher": "higher is better", "lower": "lower is better", None: ""}


def help_section(training_run: bool) -> list[str]:
    """A section of --help: for a training run, every metric that ``metric=`` takes; else the results of the tasks."""
    results = [_row(spec, spec.name) for spec in RESULTS if spec.better]
    if not training_run:
        return ["", "Results, by the task of that name (several label sets: LABELS/NAME):", *results]
    columns = (HEADLINE, *training.TOTALS, *training.LOSS, *training.SCHEDULE)
    rows = [_row(spec, spec.name) for spec in columns if spec.better]
    health = [_row(spec, f"health/{spec.name}") for spec in MEASURES if spec.better]
    title = "Metrics that metric= can compare runs by (several label sets: LABELS/NAME, health/LABELS/NAME):"
    return ["", title, *rows, *results, *health]


def _row(spec: MetricSpec, name: str) -> str:
    description = "; ".join(filter(None, (spec.title, spec.about)))
    kind = ", ".join(filter(None, (spec.unit, ARROWS[spec.better])))
    line = f"  {name:<30} {description}{f' ({kind})' if kind else ''}"
    return re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), line)  # knnK, k-NN, k = K
