"""Runs -> one HTML page that loads nothing."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ijepa.report import curves, results, text
from ijepa.report.pictures import Picture
from ijepa.report.reading import AXES, RunRecord
from ijepa.report.settings import PLACES, differences
from ijepa.util.errors import show

ASSETS = Path(__file__).parent / "assets"
STYLES, SCRIPTS = ("style.css",), ("charts.js", "page.js")
COLOURS = 8
"""Of the palette; further runs have its colours again, dashed."""
FIRST = ("features", "masks", "progress")
"""The pictures that a page begins with: those of the run, not of its end."""
VERDICTS = {"healthy": "good", "warming up": "early", "collapsing": "bad", "diverging": "worse"}
"""How they are drawn; others are neutral."""


def render(runs: list[RunRecord], title: str | None = None) -> str:
    """The page of one run, or of several side by side."""
    health, training = curves.groups(runs)
    charts = [chart for group in (*health, *training) for chart in group.charts]
    drawn = {
        "axes": AXES,
        "kinds": VERDICTS,
        "runs": [curves.data(run, charts) for run in runs],
        "charts": [{"column": chart.column, "title": chart.title, "unit": chart.unit, "log": chart.log,
                    "references": _references(runs, chart.column)} for chart in charts],
    }  # fmt: skip
    return fill(
        "page.html",
        data=drawn,
        title=title or (f"{runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs side by side"),
        runs=runs,
        health=health,
        training=training,
        columns=[chart.column for chart in charts],
        headlines=[results.headlines(run) for run in runs],
        tables=results.tables(runs),
        pictures=_pictures(runs),
        differences=differences([run.config for run in runs]) if len(runs) > 1 else [],
        configs=[{key: value for key, value in run.config.items() if key not in PLACES} for run in runs],
    )


def fill(template: str, data: Any, scripts: tuple[str, ...] = SCRIPTS, **values: Any) -> str:
    """A page from a template of `ASSETS`, with styles, scripts and their data inside; values are escaped.

    Nothing but these scripts can run in it, and nothing can be loaded: its content security policy says so.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "duration": text.duration,
        "name": text.name,
        "shown": _shown,
        "spaced": _spaced,
    }
    environment.globals |= {"colour": lambda run: run % COLOURS, "verdict_kind": lambda of: VERDICTS.get(of, "other")}
    style, script = ("\n".join((ASSETS / file).read_text("utf-8") for file in files) for files in (STYLES, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        style=Markup(style), script=Markup(script), digest=digest, embedded=embedded(data), **values
    )
    return page.encode("utf-8", "backslashreplace").decode()  # half characters, which YAML and JSON can spell


def embedded(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element or a line."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Markup(written)


def _shown(value: Any) -> str:
    """A value of a configuration, as it would be typed."""
    return "{}" if value == {} else show(value)


def _spaced(value: Any) -> str:
    """The same with room to break the line in lists."""
    return _shown(value).replace(",", ", ") if isinstance(value, list) else _shown(value)


def _references(runs: list[RunRecord], column: str) -> list[dict[str, Any]]:
    """What random init and raw pixels have of a validation result: once where all runs agree."""
    found: dict[str, dict[int, float]] = {}
    for number, run in enumerate(runs):
        for subject, row in list(run.results.items())[1:]:
            value = row.get(column.removeprefix("val/")) if column.startswith("val/") else None
            if value is not None:
                found.setdefault(subject, {})[number] = value
    references = []
    for subject, values in found.items():
        if len({round(value, 4) for value in values.values()}) == 1:
            references.append({"name": subject, "value": next(iter(values.values())), "run": None})
        else:
            references += [{"name": subject, "value": value, "run": number} for number, value in values.items()]
    return references


def _pictures(runs: list[RunRecord]) -> list[tuple[str, list[int], list[tuple[int, list[Picture]]]]]:
    """By what they show: its steps, and the pictures of each run that has some."""
    found: dict[str, dict[int, list[Picture]]] = {}
    for number, run in enumerate(runs):
        for picture in run.pictures:
            found.setdefault(picture.name, {}).setdefault(number, []).append(picture)
    order = sorted(found, key=lambda name: (name.startswith("evaluation/"), name not in FIRST, name))
    return [
        (name, sorted({p.step for shown in found[name].values() for p in shown if p.step is not None}),
         list(found[name].items()))
        for name in order
    ]  # fmt: skip
