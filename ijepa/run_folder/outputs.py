"""Tells folders that this software has written from folders of images."""

from collections.abc import Collection
from pathlib import Path

from ijepa.run_folder.config import REPEAT
from ijepa.run_folder.evaluation import FILE, UNFINISHED, evaluation_file
from ijepa.run_folder.folder import RunFolder
from ijepa.run_folder.sweep import SweepFolder
from ijepa.util.reading import check_regular, read_json

MAPS = "maps.csv"
"""The table in a folder of maps that predict.py has written."""
MAPS_COLUMNS = ("file", "map", "error")
"""Its columns."""


def output_kind(folder: Path, names: Collection[str]) -> str | None:
    """What a folder is, if this software has written it: "a run", "a sweep", "an evaluation", ...

    Args:
        folder: its path.
        names: of the files in it. Files are read only if one has the name of such a folder's marker.
    """
    run, sweep = RunFolder(folder), SweepFolder(folder)
    if run.config.name in names and (run.metrics.name in names or _starts(run.config, REPEAT.encode())):
        return "a run"
    if sweep.record.name in names and {"jobs"} <= _keys(sweep.record):
        return "a sweep"
    if FILE in names and {"config", "results", "details"} <= _keys(evaluation_file(folder)):
        return "an evaluation"
    if UNFINISHED in names:
        return "an evaluation that did not finish"
    if MAPS in names and _starts(folder / MAPS, ",".join(MAPS_COLUMNS).encode()):
        return "predicted maps"
    return None


def is_in_run(folder: Path) -> bool:
    """Whether a folder is that of a run, by the files in it, whatever its config.yaml is."""
    run = RunFolder(folder)
    others = (run.metrics, run.summary, run.health, run.encoder, run.checkpoints.last)
    return any(path.exists() for path in others) or _starts(run.config, REPEAT.encode())


def _starts(file: Path, text: bytes) -> bool:
    try:
        check_regular(file)
        with file.open("rb") as opened:
            return opened.read(len(text)) == text
    except OSError:
        return False


def _keys(file: Path) -> set[str]:
    """The keys of a JSON object; none if the file is something else."""
    try:
        values = read_json(file)
    except (OSError, ValueError):
        return set()
    return set(values) if isinstance(values, dict) else set()
