"""Are pictures decoded as Pillow decodes them? Every file of a folder, by what is read here and by Pillow, in RGB.

python -m benchmarks.decoding FOLDER

Prints a line for each file that is not decoded as Pillow does, and a table. Files are decoded in a process of their
own, so that one that ends the process, or takes long, is a line, too. Good folders are the test pictures of decoders,
such as Pillow's Tests/images.
"""

import argparse
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.learning.rows import run
from ijepa.data.decode import decode
from ijepa.data.limits import PILLOW_FORMATS
from ijepa.util.errors import UserError

MAX_PIXELS = 10**8
"""As data.max_pixels by default."""
TOLERANCE = 1.001 / 255
"""Between 8-bit values, one step is rounding."""
TIMEOUT = 60.0
SAME, DIFFERENT, ONLY_PILLOW, ONLY_HERE, NEITHER, CRASH, SLOW = OUTCOMES = (
    "as Pillow", "differently", "only Pillow", "only here", "neither", "crash", "over a minute")  # fmt: skip
OTHER = "others"
"""Kind of file whose format is not read here."""


class Decoded(NamedTuple):
    """What became of a file: its format, one of `OUTCOMES`, and why."""

    kind: str
    outcome: str
    reason: str = ""


def compare(path: str) -> Decoded:
    """Decodes a file twice."""
    kind, theirs = _with_pillow(path)
    try:
        ours: Any = _with_ijepa(path)
    except Exception as error:
        ours = error
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        outcome = NEITHER
        if not isinstance(ours, Exception):
            outcome = ONLY_HERE
        elif not isinstance(theirs, Exception):
            outcome = ONLY_PILLOW
        reason = ours if isinstance(ours, Exception) else theirs
        return Decoded(kind, outcome, f"{type(reason).__name__}: {' '.join(str(reason).split())[:160]}")
    if ours.shape != theirs.shape:
        return Decoded(kind, DIFFERENT, f"shape {ours.shape} here, {theirs.shape} in Pillow")
    distance = np.abs(ours - theirs).max()
    if distance <= TOLERANCE:
        return Decoded(kind, SAME)
    return Decoded(kind, DIFFERENT, f"by up to {distance:.3g}, {np.abs(ours - theirs).mean():.3g} on average")


def _with_ijepa(path: str) -> NDArray[np.floating]:
    """RGB in 0..1, [H, W, 3]."""
    found = decode(path, 3, MAX_PIXELS)
    if isinstance(found, Image.Image):
        return np.asarray(found, dtype=np.float32) / 255
    return found.permute(1, 2, 0).numpy()


def _with_pillow(path: str) -> tuple[str, NDArray[np.floating] | Exception]:
    """The format, and RGB in 0..1, transparent pixels on white; or what Pillow raises."""
    kind = OTHER
    try:
        with open(path, "rb") as file, Image.open(file) as image:  # noqa: PTH123  # from a path, Pillow would map files
            kind = image.format if image.format in PILLOW_FORMATS else "JPEG" if image.format == "MPO" else OTHER
            image.load()
            upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # Pillow's conversion of 16 bits to RGB clips at 255
            grey = np.asarray(upright).clip(0, 65535).astype(np.float32) / 65535
            return kind, np.repeat(grey[..., None], 3, axis=2)
        if upright.mode == "F":
            return kind, np.repeat(np.asarray(upright)[..., None], 3, axis=2)
        rgba = upright.convert("RGBA")
        white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return kind, np.asarray(white.convert("RGB"), dtype=np.float32) / 255
    except Exception as error:
        return kind, error


def _kind_by_name(path: str) -> str:
    kind = Image.registered_extensions().get(Path(path).suffix.lower(), OTHER)
    return kind if kind in PILLOW_FORMATS else OTHER


def _serve(connection: Connection) -> None:
    warnings.simplefilter("ignore")
    while True:
        connection.send(compare(connection.recv()))


def decoded(paths: Sequence[str]) -> Iterator[Decoded]:
    """`compare` of each path, in a process that is replaced if a file ends it or takes longer than `TIMEOUT`."""
    spawn = multiprocessing.get_context("spawn")
    process = None
    for path in paths:
        if process is None or not process.is_alive():
            connection, other = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(other,), daemon=True)
            process.start()
            other.close()
        connection.send(path)
        if not connection.poll(TIMEOUT):
            process.kill()
            process.join()
            yield Decoded(_kind_by_name(path), SLOW)
            continue
        try:
            yield connection.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            yield Decoded(_kind_by_name(path), CRASH, f"the process ended with {process.exitcode}")
    if process is not None:
        process.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise UserError(f"{folder}: no files in this folder")
    counts = Counter[tuple[str, str]]()
    for path, found in zip(paths, decoded([str(path) for path in paths]), strict=True):
        counts[found.kind, found.outcome] += 1
        if found.outcome not in (SAME, NEITHER) and (found.kind, found.outcome) != (OTHER, ONLY_PILLOW):
            print(f"{path.relative_to(folder)}: {found.kind}, {found.outcome}. {found.reason}")
    print(f"\n| format | {' | '.join(OUTCOMES)} |\n|---|{'---:|' * len(OUTCOMES)}")
    for kind in sorted({kind for kind, _ in counts}, key=lambda kind: (kind == OTHER, kind)):
        print(f"| {kind} | {' | '.join(str(counts[kind, outcome] or '') for outcome in OUTCOMES)} |")


if __name__ == "__main__":
    run(main)
