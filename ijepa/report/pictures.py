"""A run's pictures, encoded for the page."""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ijepa.report import text
from ijepa.run_folder import RunFolder
from ijepa.run_folder.checkpoints import step_of

MAX_WIDTH = 2400
"""In pixels; wider pictures are scaled down."""
MAX_PICTURES, MAX_BYTES = 60, 24_000_000
"""Limits for the pictures of a run: their number, and their total size in bytes."""


@dataclass(frozen=True)
class Picture:
    """A picture of a run.

    Attributes:
        name: its path in the run's folder, without the step.
        step: after which it was drawn; None if it has no step.
        source: a ``data:`` URL.
        width: in pixels.
        height: in pixels.
    """

    name: str
    step: int | None
    source: str
    width: int
    height: int


def pictures(folder: Path) -> tuple[list[Picture], list[str]]:
    """The pictures of the run in ``folder``, and notes about pictures that were left out."""
    run = RunFolder(folder)
    files = sorted((*_name_and_step(path, run), path) for path in run.all_pictures())
    encoded, notes, used = [], [], 0
    chosen = _thinned(files)
    for name, step, path in chosen:
        try:
            data, width, height = _encoded(path)
        except Exception:  # whatever Pillow raises for a broken file
            notes.append(f"{text.name(path.relative_to(folder))} is not a valid picture and was skipped")
            continue
        if used + len(data) > MAX_BYTES:
            which = name if step < 0 else f"{name}, step {step},"
            notes.append(f"{which} was skipped: larger than {text.size(MAX_BYTES)}")
            continue
        used += len(data)
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        encoded.append(Picture(name, None if step < 0 else step, source, width, height))
    if len(chosen) < len(files):
        left_out = f"{len(files) - len(chosen)} of {len(files)} pictures were left out"
        notes.append(f"{left_out}; a page shows at most {MAX_PICTURES} per run")
    return encoded, notes


def _name_and_step(path: Path, run: RunFolder) -> tuple[str, int]:
    """Name and step of pictures/NAME/step-000500.png or pictures/NAME.png; the step is -1 if there is none."""
    step = step_of(path)
    without_step = path.with_suffix("") if step is None else path.parent
    name = text.name(without_step.relative_to(run.path))
    return name.removeprefix(f"{run.pictures.name}/"), -1 if step is None else step


def _thinned(files: list[tuple[str, int, Path]]) -> list[tuple[str, int, Path]]:
    """At most `MAX_PICTURES` of ``files``; names with many steps keep the same number of evenly spaced steps each."""
    groups: dict[str, list[tuple[str, int, Path]]] = {}
    for item in files:
        groups.setdefault(item[0], []).append(item)
    most_steps = max(map(len, groups.values()), default=0)
    while most_steps > 1 and sum(min(len(group), most_steps) for group in groups.values()) > MAX_PICTURES:
        most_steps -= 1
    chosen = []
    for group in groups.values():
        count = min(len(group), most_steps)
        indices = [len(group) - 1] if count == 1 else [round(i * (len(group) - 1) / (count - 1)) for i in range(count)]
        chosen += [group[index] for index in indices]
    return chosen[:MAX_PICTURES]


def _encoded(path: Path) -> tuple[bytes, int, int]:
    """A picture as PNG, with width and height; decoded fully, to detect broken files, and scaled down if too wide."""
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
    if image.format == "PNG" and image.width <= MAX_WIDTH:
        return data, image.width, image.height
    if image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    if image.width > MAX_WIDTH:
        size = MAX_WIDTH, max(round(image.height * MAX_WIDTH / image.width), 1)
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue(), image.width, image.height
