"""What do the scaled-down ablations show? Prints the tables of docs/ablations.md from the CSV files of their sweeps.

python -m benchmarks.ablations [FOLDER]      with FOLDER/NAME.csv or FOLDER/NAME/sweep.csv for each sweep
"""

import csv
import statistics
import sys
from pathlib import Path

import numpy as np

from ijepa.run_folder import SweepFolder
from ijepa.sweeps.table import half_width

KNOWN = Path(__file__).resolve().parent.parent / "docs" / "ablations"
RESULTS = {"lowshot_1pct": "1 % of labels", "lowshot_10pct": "10 %", "knn20": "k-NN", "logistic": "logistic"}
BASE = ("masking", "multiblock")
"""The sweep and swept value of the default configuration, to which all others are compared."""
PAPER = {
    "masking": {"multiblock": "54.2", "rasterized": "15.5", "block": "20.2", "random": "17.6"},
    "targets": {"output": "66.9", "pixels": "40.7"},
    "target_scale": {"[0.075,0.2]": "19.2", "[0.1,0.2]": "39.2", "[0.125,0.2]": "42.4", "[0.15,0.2]": "54.2",
                     "[0.2,0.25]": "38.9", "[0.2,0.3]": "33.6"},
    "context_scale": {"[0.4,1.0]": "31.2", "[0.65,1.0]": "47.1", "[0.75,1.0]": "49.3", "[0.85,1.0]": "54.2"},
    "num_targets": {"1": "9.0", "2": "22.0", "3": "48.5", "4": "54.2"},
    "target_masking": {"output": "67.3", "input": "56.1"},
    "predictor_depth": {"3": "64.0 (6 blocks)", "6": "66.9 (12 blocks)"},
    "weight_decay": {"{shape:cosine,start:0.04,end:0.4}": "69.4 (fine-tuned)",
                     "{shape:constant,start:0.05,end:0.05}": "70.7 (fine-tuned)"},
    "predictor_width": {"48": "70.7 (384 of 1024, fine-tuned)", "96": "68.4 (1024 of 1024, fine-tuned)"},
}  # fmt: skip
"""The paper's accuracies with 1 % of ImageNet's labels, in % (tables 6 to 14)."""
LONGER = "masking_l2"
"""The masking sweep with another recipe: objective=l2, 40 epochs."""

Runs = dict[str, dict[str, float]]
"""Results of one configuration in %, by seed and metric."""


def read(folder: Path, name: str) -> dict[str, Runs]:
    """The finished jobs of a sweep, by swept value (other than the seed); empty if there is no CSV file."""
    file = next((path for path in (folder / f"{name}.csv", SweepFolder(folder / name).table) if path.exists()), None)
    variants: dict[str, Runs] = {}
    if file is None:
        return variants
    with file.open(newline="") as opened:
        for row in csv.DictReader(opened):
            key = next(key for key in row if key not in ("job", "status", "seed"))
            if row["status"] == "finished":
                runs = variants.setdefault(row[key], {})
                runs[row["seed"]] = {result: 100 * float(row[result]) for result in RESULTS}
    return variants


def interval(values: list[float]) -> float:
    return half_width(np.array(values)) or float("nan")


def tabulate(name: str, variants: dict[str, Runs]) -> None:
    recipe = "masking objective=l2 schedule.epochs=40" if name == LONGER else name
    print(f"\n| `sweep={recipe}` | paper | {' | '.join(RESULTS.values())} |\n|---|---:|{'---:|' * len(RESULTS)}")
    for value, runs in variants.items():
        columns = [[run[result] for run in runs.values()] for result in RESULTS]
        cells = [f"{statistics.mean(column):.1f} ±{interval(column):.1f}" for column in columns]
        print(f"| `{value}` | {PAPER[name.removesuffix('_l2')].get(value, '')} | {' | '.join(cells)} |")


def compare(sweeps: dict[str, dict[str, Runs]]) -> None:
    """Prints the differences from the default, paired by seed, whose 95 % interval excludes 0."""
    default = sweeps[BASE[0]][BASE[1]]
    lines, count = [], 0
    for name, variants in sweeps.items():
        for value, runs in variants.items():
            seeds = sorted(set(runs) & set(default))
            for result, title in RESULTS.items():
                differences = [runs[seed][result] - default[seed][result] for seed in seeds]
                if not any(differences):
                    continue  # the default itself
                count += 1
                mean, half = statistics.mean(differences), interval(differences)
                if abs(mean) > half:
                    lines.append(f"{name} {value}, {title}: {mean:+.1f} ±{half:.1f}")
    print(f"\n{len(lines)} of {count} differences from the default, paired by seed, have a 95 % interval without 0:")
    print("\n".join(lines))


def main(folder: Path = KNOWN) -> None:
    sweeps = {name: variants for name in PAPER if (variants := read(folder, name))}
    if BASE[1] not in sweeps.get(BASE[0], {}):
        sys.exit(f"error: {folder}: no {BASE[0]}.csv or {BASE[0]}/sweep.csv with finished jobs of {BASE[1]}")
    for name, variants in (sweeps | {LONGER: read(folder, LONGER)}).items():
        if variants:
            tabulate(name, variants)
    compare(sweeps)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
