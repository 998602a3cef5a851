"""Renders runs as one self-contained HTML page."""

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
from ijepa.report.settings import NON_RESULT_KEYS, differences
from ijepa.util.errors import show

ASSETS = Path(__file__).parent / "assets"
STYLES, SCRIPTS = ("style.css",), ("charts.js", "page.js")
COLOURS = 8
"""Size of the palette; further runs repeat the colours, with dashed lines."""
FIRST_PICTURES = ("features", "masks", "progress")
"""The pictures that the page shows first."""
VERDICTS = {"healthy": "good", "warming up": "early", "context unused": "bad", "nothing learnt": "bad",
            "representation unused": "bad", "collapsing": "bad", "diverging": "worse"}  # fmt: skip
"""CSS class of each verdict; others are neutral."""


def render(runs: list[RunRecord], title: str | None = None) -> str:
    """The HTML page of one run, or of several runs side by side."""
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
        configs=[{key: value for key, value in run.config.items() if key not in NON_RESULT_KEYS} for run in runs],
    )


def fill(template: str, data: Any, scripts: tuple[str, ...] = SCRIPTS, **values: Any) -> str:
    """An HTML page from a template in `ASSETS`, with styles, scripts and their data embedded.

    Values are escaped, and the content security policy allows no other script and no request.
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
        "spaced": _shown_with_breaks,
    }
    environment.globals |= {
        "colour": lambda run: run % COLOURS,
        "verdict_kind": lambda verdict: VERDICTS.get(verdict, "other"),
    }
    style, script = ("\n".join((ASSETS / file).read_text("utf-8") for file in files) for files in (STYLES, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        style=Markup(style), script=Markup(script), digest=digest, embedded=embedded(data), **values
    )
    return page.encode("utf-8", "backslashreplace").decode()  # lone surrogates, which YAML and JSON can contain


def embedded(value: Any) -> Markup:
    """JSON for a script element, escaped so that nothing in it can end the element."""
    encoded = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        encoded = encoded.replace(character, f"\\u{ord(character):04x}")
    return Markup(encoded)


def _shown(value: Any) -> str:
    """A value of a configuration as it is typed."""
    return "{}" if value == {} else show(value)


def _shown_with_breaks(value: Any) -> str:
    """The same, with spaces in lists, where the line may break."""
    return _shown(value).replace(",", ", ") if isinstance(value, list) else _shown(value)


def _references(runs: list[RunRecord], column: str) -> list[dict[str, Any]]:
    """Horizontal lines for the baselines' value of a result: one for all runs if they agree, else one per run."""
    by_baseline: dict[str, dict[int, float]] = {}
    for number, run in enumerate(runs):
        for model, row in list(run.results.items())[1:]:
            value = row.get(column.removeprefix("val/")) if column.startswith("val/") else None
            if value is not None:
                by_baseline.setdefault(model, {})[number] = value
    references = []
    for model, values in by_baseline.items():
        if len({round(value, 4) for value in values.values()}) == 1:
            references.append({"name": model, "value": next(iter(values.values())), "run": None})
        else:
            references += [{"name": model, "value": value, "run": number} for number, value in values.items()]
    return references


def _pictures(runs: list[RunRecord]) -> list[tuple[str, list[int], list[tuple[int, list[Picture]]]]]:
    """For each picture's name: its steps, and the pictures of each run by the run's number."""
    by_name: dict[str, dict[int, list[Picture]]] = {}
    for number, run in enumerate(runs):
        for picture in run.pictures:
            by_name.setdefault(picture.name, {}).setdefault(number, []).append(picture)
    order = sorted(by_name, key=lambda name: (name.startswith("evaluation/"), name not in FIRST_PICTURES, name))
    return [
        (name, sorted({p.step for shown in by_name[name].values() for p in shown if p.step is not None}),
         list(by_name[name].items()))
        for name in order
    ]  # fmt: skip
