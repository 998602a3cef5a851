"""The long tries: ``make chaos``, or ``PYTHONPATH=tests python -m chaos [CAMPAIGN [FIRST [COUNT]]]``.

Each try has a number, from which all of it follows. Tries that have passed are rows of a file, and are not repeated;
each failure is printed with the command that repeats it.
"""

import argparse
import csv
import multiprocessing
import sys
import tempfile
import time
import traceback
from pathlib import Path

from chaos import commands, configs, files, stops, texts

CAMPAIGNS = {  # what is tried, how often in all, and how often by one process
    "configs": (configs.case, 2000, 100),
    "pictures": (files.picture_case, 4000, 200),
    "weights": (files.weight_case, 1000, 50),
    "texts": (texts.case, 2700, 90),
    "kills": (stops.kill_case, 25, 1),
    "signals": (stops.signal_case, 25, 1),
    "commands": (commands.case, 40, 10),
    "disks": (stops.disk_case, 15, 1),
}
COLUMNS = ("campaign", "try", "outcome", "seconds")


def attempt(
    campaign: str, seeds: list[int], results: "multiprocessing.queues.SimpleQueue[tuple[int, str, float]]"
) -> None:
    """Runs tries in a process of its own, which may die."""
    for seed in seeds:
        results.put((seed, "died", 0.0))
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                CAMPAIGNS[campaign][0](seed, Path(folder))
                outcome = "passed"
            except BaseException:
                traceback.print_exc()
                outcome = "failed"
        results.put((seed, outcome, time.monotonic() - begun))
    results.put((-1, "done", 0.0))


def run(campaign: str, seeds: list[int], file: Path) -> int:
    """Runs tries and adds a row for each to ``file``; returns how many failed."""
    failures, batch = 0, CAMPAIGNS[campaign][2]
    while seeds:
        results = multiprocessing.SimpleQueue()  # puts at once: the process may die
        process = multiprocessing.Process(target=attempt, args=(campaign, seeds[:batch], results))
        process.start()
        last, outcomes = -1, dict[int, tuple[str, float]]()
        while process.is_alive() or not results.empty():
            if results.empty():
                time.sleep(0.05)
                continue
            last, outcome, seconds = results.get()
            if last >= 0:
                outcomes[last] = outcome, seconds
        process.join()
        if not outcomes:  # it died before it began
            outcomes[seeds[0]] = "died", 0.0
        for seed, (outcome, seconds) in outcomes.items():
            add_row(file, {"campaign": campaign, "try": seed, "outcome": outcome, "seconds": f"{seconds:.1f}"})
            if outcome != "passed":
                failures += 1
                print(f"{outcome}: PYTHONPATH=tests python -m chaos {campaign} {seed} 1", flush=True)
        seeds = [seed for seed in seeds if seed not in outcomes]
    return failures


def add_row(file: Path, row: dict[str, object]) -> None:
    begins = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerow(row)


def passed(file: Path) -> set[tuple[str, int]]:
    if not file.exists():
        return set()
    with file.open(newline="") as stream:
        return {(row["campaign"], int(row["try"])) for row in csv.DictReader(stream) if row["outcome"] == "passed"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("campaign", nargs="?", choices=CAMPAIGNS)
    parser.add_argument("first", nargs="?", type=int, default=0)
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("--file", type=Path, default=Path("chaos.csv"), help="of the tries that were made")
    given = parser.parse_args()
    failures = 0
    for campaign in [given.campaign] if given.campaign else CAMPAIGNS:
        count = given.count or CAMPAIGNS[campaign][1]
        seeds = list(range(given.first, given.first + count))
        done = passed(given.file) if given.count is None else set()
        left = [seed for seed in seeds if (campaign, seed) not in done]
        failed = run(campaign, left, given.file)
        failures += failed
        print(f"{campaign:<9} {count} tries, {failed} failed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
