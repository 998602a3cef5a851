"""The rows of a benchmark's CSV file, which several processes may write to; and what ends a command."""

import contextlib
import csv
import fcntl
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ijepa.util.errors import UserError
from ijepa.util.files import replacing

Row = dict[str, str]

ACCURACIES = {"knn20": "knn20", "logistic": "logistic", "linear": "linear", "labels10": "lowshot_10pct",
              "labels1": "lowshot_1pct"}  # fmt: skip
"""Column: the metric whose mean over label sets it holds."""
MONITORS = ("rankme", "effective_rank", "context_gain", "cosine_gap", "position_explained", "verdict")
COLUMNS = ("method", "name", "data", "part", "budget", "seed", "share", "images", "flops", "seconds", *ACCURACIES,
           *MONITORS, "command")  # fmt: skip
KEY = ("name", "data", "part", "budget", "seed")
"""What identifies a run."""


def run(main: Callable[[], None]) -> None:
    """Runs a command; a mistake of the user's becomes one line and the exit code."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def shown_command(module: str, arguments: Sequence[str]) -> str:
    """The command of a row, without the paths of this machine."""
    words = list(arguments)
    if "--root" in words:
        words[words.index("--root") + 1] = "FOLDER"
    for option in ("--csv", "--checkpoints"):
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    return shlex.join(["python", "-m", module, *words])


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Several processes may write to the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def _same_run(one: Row, other: Row) -> bool:
    return all(one[key] == other[key] for key in KEY)


def is_finished(file: Path, row: Row) -> bool:
    """Whether the file has the last row of this run."""
    return any(_same_run(known, row) and known["share"] == "1" for known in read_rows(file))


def discard_run(file: Path, row: Row) -> None:
    """Removes the rows of a run that was interrupted."""
    with _locked(file):
        _write(file, [known for known in read_rows(file) if not _same_run(known, row)])


def append_row(file: Path, row: Row) -> None:
    """Adds a row; a run that was stopped between a measurement and its checkpoint replaces it."""
    with _locked(file):
        others = [known for known in read_rows(file) if not (_same_run(known, row) and known["share"] == row["share"])]
        _write(file, [*others, row])
    print(" ".join(f"{name} {row[name]}" for name in COLUMNS[:-1] if row.get(name)), flush=True)


def _write(file: Path, rows: list[Row]) -> None:
    with replacing(file) as temporary, temporary.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
