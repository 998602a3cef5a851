"""`MetricSpec`: a metric's title, unit and better direction, declared beside the code that computes it."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

PERCENT = "%"
"""The unit of fractions from 0 to 1, which are shown in per cent."""
UNIT_SUFFIXES = ((r"(?<=\d)(pct|percent)$", " %"), (r"(?<=\d)shot$", " per class"))
"""Patterns in the values of placeholders, and what replaces them in titles: ``1pct`` is shown as ``1 %``."""


@dataclass(frozen=True)
class MetricSpec:
    """A metric; or a family of metrics, with ``{placeholders}`` in its name and titles: ``knn{k}``.

    Attributes:
        name: the column of metrics.csv (``train/loss``, ``health/rankme``), or the name of a task's result.
        title: for charts and tables.
        unit: ``%`` for fractions from 0 to 1, otherwise as shown: ``s``, ``images/s``; empty: no unit.
        better: whether higher or lower values are better; None if neither is (learning rate, epoch).
        about: a short explanation.
        short: the title where space is tight; empty: ``title``.
        series: the title of the chart that a family shares; empty: a chart for each metric.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    about: str = ""
    short: str = ""
    series: str = ""

    @property
    def is_fraction(self) -> bool:
        """Whether values are in 0..1 and are shown in per cent."""
        return self.unit == PERCENT

    def format_value(self, value: float) -> str:
        """A value with its unit, for a line of text."""
        return f"{100 * value:.1f} %" if self.is_fraction else f"{value:.4g} {self.unit}".strip()

    def instance(self, **values: Any) -> "MetricSpec":
        """The metric of this family with these values for the placeholders."""
        expanded = {key: _expand_unit(str(value)) for key, value in values.items()}
        titles = {key: getattr(self, key).format(**expanded) for key in ("title", "short")}
        return replace(self, name=self.name.format(**values), **titles)

    def match(self, name: str) -> "MetricSpec | None":
        """The metric itself, or the metric of this family, if it is called ``name``; else None."""
        if name == self.name:
            return self
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.name))
        values = re.fullmatch(pattern, name)
        return self.instance(**values.groupdict()) if values and "{" in self.name else None

    def plain(self) -> dict[str, Any]:
        """A dict for JSON; `from_plain` reads it."""
        return asdict(self)


def from_plain(values: Any) -> MetricSpec:
    """The spec that `MetricSpec.plain` wrote; raises TypeError or ValueError if ``values`` are anything else."""
    spec = MetricSpec(**values)
    if spec.better not in ("higher", "lower", None):
        raise ValueError(f"better={spec.better}: should be higher, lower or null")
    texts = (spec.name, spec.title, spec.unit, spec.about, spec.short, spec.series)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("the texts of a metric should be strings")
    return spec


def find_spec(name: str, specs: Iterable[MetricSpec]) -> MetricSpec | None:
    """The first spec with this name, families included; None if there is none."""
    return next((found for spec in specs if (found := spec.match(name)) is not None), None)


def title_from_name(name: str) -> str:
    """A title for a metric without a spec: its name in words."""
    return name.replace("_", " ")


def _expand_unit(value: str) -> str:
    for pattern, spelt in UNIT_SUFFIXES:
        value = re.sub(pattern, spelt, value)
    return value
