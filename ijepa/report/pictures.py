"""A run's pictures, as they stand in a page."""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ijepa.report import text
from ijepa.run_folder import RunFolder
from ijepa.run_folder.checkpoints import step_of

WIDEST = 2400
"""Pixels; what is wider is scaled down."""
MOST, LARGEST = 60, 24_000_000
"""Pictures of a run, and their bytes together."""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: what it shows: its path without the step.
        step: of the run, where there is one for several steps.
        source: a data: address.
        width: in pixels.
        height: in pixels.
    """

    name: str
    step: int | None
    source: str
    width: int
    height: int


def pictures(folder: Path) -> tuple[list[Picture], list[str]]:
    """Those of ``folder``, and what to know about the ones that are left out."""
    run = RunFolder(folder)
    placed = sorted((*_place(path, run), path) for path in run.all_pictures())
    found, notes, used = [], [], 0
    chosen = _thinned(placed)
    for name, step, path in chosen:
        try:
            data, width, height = _encoded(path)
        except Exception:  # whatever Pillow makes of a broken file
            notes.append(f"{text.name(path.relative_to(folder))} is not a valid picture and was skipped")
            continue
        if used + len(data) > LARGEST:
            notes.append(f"{name}{'' if step < 0 else f', step {step},'} was skipped: larger than {text.size(LARGEST)}")
            continue
        used += len(data)
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        found.append(Picture(name, None if step < 0 else step, source, width, height))
    if len(chosen) < len(placed):
        notes.append(
            f"{len(placed) - len(chosen)} of {len(placed)} pictures were left out; a page shows at most {MOST} per run"
        )
    return found, notes


def _place(path: Path, run: RunFolder) -> tuple[str, int]:
    """What a picture shows, and its step: pictures/NAME/step-000500.png; -1 without."""
    step = step_of(path)
    shown = path.with_suffix("") if step is None else path.parent
    whole = text.name(shown.relative_to(run.path))
    return whole.removeprefix(f"{run.pictures.name}/"), -1 if step is None else step


def _thinned(placed: list[tuple[str, int, Path]]) -> list[tuple[str, int, Path]]:
    """At most `MOST`: one of everything, and of what there is for several steps as many, evenly spread, as fit."""
    groups: dict[str, list[tuple[str, int, Path]]] = {}
    for item in placed:
        groups.setdefault(item[0], []).append(item)
    kept = max(map(len, groups.values()), default=0)
    while kept > 1 and sum(min(len(group), kept) for group in groups.values()) > MOST:
        kept -= 1
    chosen = []
    for group in groups.values():
        count = min(len(group), kept)
        places = [len(group) - 1] if count == 1 else [round(i * (len(group) - 1) / (count - 1)) for i in range(count)]
        chosen += [group[place] for place in places]
    return chosen[:MOST]


def _encoded(path: Path) -> tuple[bytes, int, int]:
    """The bytes of a PNG file, read to its end: its own, or scaled down."""
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
    if image.format == "PNG" and image.width <= WIDEST:
        return data, image.width, image.height
    if image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    if image.width > WIDEST:
        size = WIDEST, max(round(image.height * WIDEST / image.width), 1)
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), image.width, image.height
