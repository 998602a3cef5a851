"""How much does each method learn for its compute? One row per method, budget, seed and share of the budget.

python -m benchmarks.learning cifar10 --root FOLDER --methods default published --budgets 2e13 8e13 --seeds 0 1 2

Rows are added to a CSV file as they come; a run that it holds to the end is not trained again. ``--set`` tries other
values of configuration keys, in rows of a name of their own: ``--name xavier --set model.init=xavier``.
"""

import argparse
import csv
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.learning.images import load
from benchmarks.learning.training import Point, pretrain
from ijepa import compose_config
from ijepa.data.sets import Source
from ijepa.evaluation import tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.runtime import Runtime
from ijepa.run import build
from ijepa.util.errors import UserError
from ijepa.util.files import replacing

METHODS: dict[str, list[str]] = {
    "default": [],
    "no_prediction": ["objective.distance_weight=0"],  # the regularisers alone
    "pixels": ["objective.target=pixels"],
    "published": ["objective=smooth_l1"],
}
"""Overrides of each method."""
DATA = {
    "cifar10": ["data=cifar10", "model=vit_micro", "model.patch_size=4"],
    "digits": ["data=digits"],  # needs no files: to try the benchmark itself
    "scenes": ["data=scenes"],
    "folder": ["data=folder", "data.root=.", "data.image_size=48", "model.patch_size=6"],
}
COLUMNS = ("method", "name", "data", "part", "budget", "seed", "share", "images", "flops", "seconds", "knn20",
           "logistic", "command")  # fmt: skip
KEY = ("name", "data", "part", "budget", "seed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what the CSV file lacks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--root", type=Path, help="the images' folder")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["default"])
    parser.add_argument("--name", help="of the row, with --set")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the method")
    parser.add_argument("--budgets", nargs="+", type=float, default=[2e13], metavar="FLOPS")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--part", choices=("search", "report"), default="search")
    parser.add_argument("--csv", type=Path, default=Path("docs/learning/search.csv"))
    values = parser.parse_args(arguments)
    if values.set and not values.name:
        raise UserError("--set needs --name: rows are found again by it")
    command = shlex.join(["python", "-m", "benchmarks.learning", *(sys.argv[1:] if arguments is None else arguments)])
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # which devices there are, and what else one could install
    source = load(values.data, values.root, values.part)
    for budget in values.budgets:
        for seed in values.seeds:
            for method in values.methods:
                row = {"method": method, "name": values.name or method, "data": values.data, "part": values.part,
                       "budget": f"{budget:g}", "seed": str(seed), "command": command}  # fmt: skip
                if not _is_finished(values.csv, row):
                    overrides = [*DATA[values.data], *METHODS[method], *values.set, f"seed={seed}"]
                    _train(row, overrides, source, budget, values.csv)


def _train(row: dict[str, str], overrides: list[str], source: Source, budget: float, file: Path) -> None:
    config = compose_config(*overrides, "task=[knn,logistic]")
    data = build.data(config.data, source, None, 1, config.hardware, config.seed)

    def measure(point: Point) -> None:
        context = EvalContext(data, Runtime(torch.device("cpu")), config.seed, quiet=True)
        model = EvaluatedModel("target encoder", point.encoder.eval())
        results = tasks.evaluate(config.task, model, context).values
        found = {"share": f"{point.share:g}", "images": str(point.images), "flops": f"{point.flops:.4g}",
                 "seconds": f"{point.seconds:.0f}"}  # fmt: skip
        for metric in ("knn20", "logistic"):
            accuracies = [value for name, value in results.items() if name.rpartition("/")[2] == metric]
            found[metric] = f"{100 * sum(accuracies) / len(accuracies):.2f}"  # mean over label sets
        _append(file, {**row, **found})

    _write(file, [known for known in _rows(file) if not _same_run(known, row)])  # of a run that was interrupted
    pretrain(overrides, source, budget, measure)


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def _same_run(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(one[key] == other[key] for key in KEY)


def _is_finished(file: Path, row: dict[str, str]) -> bool:
    """Whether the file has the last row of this run."""
    return any(_same_run(known, row) and known["share"] == "1" for known in _rows(file))


def _append(file: Path, row: dict[str, str]) -> None:
    _write(file, [*_rows(file), row])
    print(" ".join(row[name] for name in COLUMNS[:-1]), flush=True)


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    with replacing(file) as temporary, temporary.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
