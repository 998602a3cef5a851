"""How long until something happens? Seconds from a command to its first line, its first training step and its end.

python -m benchmarks.start [--repeats 5]

Medians over whole processes, with a warm file cache: the first of each is not counted.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

SMOKE = ["train.py", "experiment=smoke"]
DEFAULT = ["train.py", "callbacks.log_every_steps=1"]
POLL_SECONDS = 0.02


class Times(NamedTuple):
    """Seconds from the command to each event; None: it did not happen."""

    line: float | None
    step: float | None
    end: float | None


def has_stepped(folder: Path) -> bool:
    """Whether the run in ``folder`` has written the metrics of a training step."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return any(row["step"] not in ("", "0") for row in csv.DictReader(file))
    except (FileNotFoundError, KeyError):
        return False


def measure(arguments: list[str], folder: Path, until_step: bool = False) -> Times:
    """The times of a command; ``until_step``: it is killed after its first training step."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    lines: list[float] = []
    reader = threading.Thread(target=lambda: lines.extend(time.perf_counter() for _ in process.stdout or ()))
    reader.start()
    step, resumes = None, has_stepped(folder)
    while process.poll() is None:
        if step is None and not resumes and has_stepped(folder):
            step = time.perf_counter() - started
            if until_step:
                process.kill()
        time.sleep(POLL_SECONDS)
    end = time.perf_counter() - started
    reader.join()
    if process.returncode and not until_step:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return Times(lines[0] - started if lines else None, step, None if until_step else end)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    table = Table("command", "first line, s", "first step, s", "end, s")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        run_dir = f"run_dir={folder}"
        cases = {
            "train.py --help": (["train.py", "--help"], False, False),
            "train.py": ([*DEFAULT, run_dir], True, True),
            "train.py experiment=smoke": ([*SMOKE, run_dir], False, True),
            "the same, finished, with resume=auto": ([*SMOKE, run_dir, "resume=auto"], False, False),
        }
        for name, (arguments, until_step, anew) in cases.items():
            found = []
            for _ in range(repeats + 1):
                if anew:
                    shutil.rmtree(folder, ignore_errors=True)
                found.append(measure(arguments, folder, until_step))
            columns = zip(*found[1:], strict=True)
            table.add_row(name, *(_median([value for value in column if value is not None]) for column in columns))
    Console(width=120).print(table)


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else ""


if __name__ == "__main__":
    main()
