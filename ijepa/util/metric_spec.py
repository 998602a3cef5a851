"""What a metric is called, its unit, and which direction is better; it stands beside what computes the metric."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

PERCENT = "%"
"""The unit of fractions from 0 to 1, which people see in per cent."""
UNITS_IN_NAMES = ((r"(?<=\d)(pct|percent)$", " %"), (r"(?<=\d)shot$", " per class"))
"""How the names of amounts are spelt in titles."""


@dataclass(frozen=True)
class MetricSpec:
    """A metric, or with ``{placeholders}`` in its name and titles a family of them: ``knn{k}``.

    Attributes:
        name: the column of metrics.csv (``train/loss``, ``health/rankme``), or the name of a task's result.
        title: in the field's words, for charts and tables.
        unit: ``%`` for fractions from 0 to 1, otherwise as shown: ``s``, ``images/s``; empty without one.
        better: whether higher or lower values are better; None for settings and for what is merely watched.
        about: a few more words.
        short: the title where space is tight; empty: the title.
        series: the title of a chart that the family shares; empty: a chart of its own.
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
        """Whether values lie from 0 to 1 and are shown in per cent."""
        return self.unit == PERCENT

    def shown(self, value: float) -> str:
        """A value with its unit, for a line of text."""
        return f"{100 * value:.1f} %" if self.is_fraction else f"{value:.4g} {self.unit}".strip()

    def named(self, **values: Any) -> "MetricSpec":
        """The member of the family with these values in its name."""
        told = {key: _told(str(value)) for key, value in values.items()}
        titles = {key: getattr(self, key).format(**told) for key in ("title", "short")}
        return replace(self, name=self.name.format(**values), **titles)

    def member(self, name: str) -> "MetricSpec | None":
        """The member of the family, or the metric itself, that has this name; None where it is another's."""
        if name == self.name:
            return self
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.name))
        found = re.fullmatch(pattern, name)
        return self.named(**found.groupdict()) if found and "{" in self.name else None

    def plain(self) -> dict[str, Any]:
        """For JSON; `from_plain` reads it."""
        return asdict(self)


def from_plain(values: Any) -> MetricSpec:
    """From what `MetricSpec.plain` wrote; raises TypeError or ValueError where it is something else."""
    spec = MetricSpec(**values)
    if spec.better not in ("higher", "lower", None):
        raise ValueError(f"better={spec.better}: should be higher, lower or null")
    texts = (spec.name, spec.title, spec.unit, spec.about, spec.short, spec.series)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("the texts of a metric should be strings")
    return spec


def find(name: str, specs: Iterable[MetricSpec]) -> MetricSpec | None:
    """The first spec, or member of a family, that has this name."""
    return next((found for spec in specs if (found := spec.member(name)) is not None), None)


def spaced(name: str) -> str:
    """A title for a metric without a spec: its name in words."""
    return name.replace("_", " ")


def _told(value: str) -> str:
    for pattern, spelt in UNITS_IN_NAMES:
        value = re.sub(pattern, spelt, value)
    return value
