"""How much does each method learn for its compute? One row per method, budget, seed and share of the budget.

python -m benchmarks.learning cifar10 --root FOLDER --methods ours published --budgets 2e13 8e13 --seeds 0 1 2

Rows are added to a CSV file as they come; a run that it holds to the end is not trained again. ``--set`` tries other
values of configuration keys, in rows of a name of their own: ``--name xavier --set model.init=xavier``.
"""

import argparse
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.learning import baselines
from benchmarks.learning.images import labelled, load
from benchmarks.learning.rows import (
    ACCURACIES,
    MONITORS,
    Row,
    append_row,
    discard_run,
    is_finished,
    run,
    shown_command,
)
from benchmarks.learning.training import SHARES, Point, train, untrained
from ijepa import compose_config, save_encoder
from ijepa.config import TrainConfig
from ijepa.data.sets import Source
from ijepa.evaluation import tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.linear import FEATURE_BATCH_SIZE
from ijepa.evaluation.runtime import Runtime
from ijepa.health.verdict import HealthCheck, diagnose
from ijepa.run import build
from ijepa.run.teacher_run import teacher_config
from ijepa.util.errors import UserError


class Method(NamedTuple):
    """A way to train the encoder.

    overrides: of the configuration.
    baseline: builds the module and its batches; None: I-JEPA.
    trained: whether there is anything to train.
    encoder_only: predictor and target encoder only serve the health checks, so they do not count.
    """

    overrides: list[str]
    baseline: Callable[..., Any] | None = None
    trained: bool = True
    encoder_only: bool = False


PUBLISHED = ["objective=smooth_l1", "masking=multiblock", "model.init=published", "optimizer.lr=5e-4",
             "schedule.weight_decay.start=0.04", "schedule.weight_decay.end=0.4", "schedule.momentum.start=0.996",
             "schedule.momentum.end=1.0"]  # fmt: skip
OURS = ["experiment=small_images"]
PIXELS = [*OURS, "objective.target=pixels", "objective.target_depths=null", "objective.standardize_targets=false"]
STUDENT = ["experiment=student", "model.width=96", "predictor.width=48", "optimizer.lr=6e-3"]  # sizes as ours
MAE = ["objective=pixels", "masking=random", "masking.ratio=0.75", "model.init=xavier", "optimizer.betas=[0.9,0.95]"]
METHODS = {
    "ours": Method(OURS),
    "default": Method([]),
    "published": Method(PUBLISHED),
    "no_prediction": Method([*OURS, "objective.distance_weight=0"], encoder_only=True),  # the regularisers alone
    "pixels": Method(PIXELS),  # all else as ours
    "frozen": Method(STUDENT),  # SALT (2509.24317)
    "mae": Method(MAE),  # He et al. (2111.06377): the predictor is the decoder
    "two_views": Method(OURS, baselines.two_views),
    "supervised": Method(OURS, baselines.supervised),
    "random_init": Method([], trained=False),
    "raw_pixels": Method([], trained=False),
}
DATA = {
    "cifar10": ["data=cifar10", "model=vit_micro", "model.patch_size=4", "data.workers=0"],
    "digits": ["data=digits"],  # needs no files: to try the benchmark itself
    "scenes": ["data=scenes"],
    "folder": ["data=folder", "data.root=.", "data.image_size=48", "model.patch_size=6"],
}
TASKS = {"search": ["knn", "logistic"], "report": ["knn", "logistic", "linear", "lowshot"]}
"""What is measured in each part, at the end; before, what the search measures."""
PROBES = ["task.linear.crop_scale=null", "task.linear.flip=false", "task.linear.lr=[0.01,0.1]", "task.lowshot.draws=3",
          "task.lowshot.shots=[]", "task.lowshot.shares=[0.01,0.1]"]  # fmt: skip
"""Linear probes on the features of whole images, which are extracted once: with crops, 50 epochs of them would cost
many times the training."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what the CSV file lacks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--root", type=Path, help="the images' folder")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["ours"])
    parser.add_argument("--name", help="of the row, with --set")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the method")
    parser.add_argument("--budgets", nargs="+", type=float, default=[2e13], metavar="FLOPS")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES, help="of the budget, measured at each")
    parser.add_argument("--teacher-share", type=float, default=0.1, help="of the budget, where a teacher is trained")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--part", choices=("search", "report"), default="search")
    parser.add_argument("--csv", type=Path, default=Path("docs/learning/search.csv"))
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FOLDER",
        help="where a run keeps its newest checkpoint, to resume after a stop; else it starts again",
    )
    values = parser.parse_args(arguments)
    if values.set and not values.name:
        raise UserError("--set needs --name: rows are found again by it")
    command = shown_command("benchmarks.learning", sys.argv[1:] if arguments is None else arguments)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # which devices there are, and what else one could install
    source = load(values.data, values.root, values.part)
    for budget in values.budgets:
        for seed in values.seeds:
            for method in values.methods:
                row = {"method": method, "name": values.name or method, "data": values.data, "part": values.part,
                       "budget": f"{budget:g}", "seed": str(seed), "command": command}  # fmt: skip
                if not is_finished(values.csv, row):
                    shares = sorted({*values.shares, 1.0})
                    _train(row, METHODS[method], values.set, source, budget, shares, values.csv, values.checkpoints,
                           values.teacher_share)  # fmt: skip


def _train(
    row: Row, method: Method, changes: list[str], source: Source, budget: float, shares: list[float],
    file: Path, checkpoints: Path | None, teacher_share: float,
) -> None:  # fmt: skip
    seed = f"seed={row['seed']}"
    overrides = [*DATA[row["data"]], *method.overrides, *changes, seed]
    configs, depth = {}, getattr(compose_config(*overrides).model, "depth", None) or 1
    for part, names in TASKS.items():
        probes = [*PROBES, f"task.linear.layers={sorted({1, min(4, depth)})}"] if "linear" in names else []
        configs[part] = compose_config(*overrides, f"task=[{','.join(names)}]", *probes)
    config = configs[row["part"]]
    data = build.data(config.data, labelled(source, row["part"]), None, 1, config.hardware, config.seed)

    spent = Point(0.0, 0, 0.0, 0.0, None, [])  # by the teacher

    def measure(point: Point) -> None:
        # In float32, whatever training is in: features of a method that learns little differ too little for bf16.
        context = EvalContext(data, Runtime(torch.device("cpu")), config.seed, quiet=True)
        encoder = None if point.encoder is None else point.encoder.eval()
        model = EvaluatedModel("target encoder", encoder)
        measured = configs[row["part"] if point.share == 1 else "search"].task
        if measured.linear is not None and encoder is not None:  # the other tasks then use these features, too
            context.features(model, max(measured.linear.layers), FEATURE_BATCH_SIZE)
        results = tasks.evaluate(measured, model, context).values
        images, flops, seconds = (before + now for before, now in zip(spent[1:4], point[1:4], strict=True))
        found = {"share": f"{point.share:g}", "images": str(images), "flops": f"{flops:.4g}",
                 "seconds": f"{seconds:.0f}"}  # fmt: skip
        for column, metric in ACCURACIES.items():
            values = [value for name, value in results.items() if name.rpartition("/")[2] == metric]
            found[column] = f"{100 * sum(values) / len(values):.2f}" if values else ""  # mean over label sets
        append_row(file, {**row, **found, **_health(point.checks)})

    checkpoint = None
    if checkpoints is not None:  # of the same settings only
        described: list[Any] = [row["method"], row["part"], budget, shares, overrides]
        described += [] if config.teacher is None else [teacher_share]
        settings = hashlib.sha256(repr(tuple(described)).encode()).hexdigest()
        checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoint = checkpoints / f"{row['name']}-{settings[:16]}.ckpt"
    if checkpoint is None or not checkpoint.exists():
        discard_run(file, row)
    if config.teacher is not None:
        path, spent = _teacher(config, source, teacher_share * budget, checkpoints)
        config = compose_config(*overrides, "teacher=null", f"objective.teacher={path}")
        budget -= spent.flops
    if method.trained:
        train(config, source, budget, measure, shares, method.baseline, method.encoder_only, checkpoint)
    else:
        measure(untrained(config, source) if row["method"] == "random_init" else Point(1.0, 0, 0.0, 0.0, None, []))


def _teacher(run: TrainConfig, source: Source, budget: float, folder: Path | None) -> tuple[Path, Point]:
    """The teacher of ``run``, trained for ``budget``, as a file, and what it has cost; kept in ``folder``, if any."""
    folder = folder or Path(tempfile.mkdtemp())
    config = teacher_config(run, Path())
    settings = hashlib.sha256(repr((budget, config)).encode()).hexdigest()[:16]
    path, cost = folder / f"teacher-{settings}.safetensors", folder / f"teacher-{settings}.json"
    if not cost.exists():

        def keep(point: Point) -> None:
            assert point.encoder is not None
            save_encoder(point.encoder, path)
            cost.write_text(json.dumps([point.images, point.flops, point.seconds]))

        train(config, source, budget, keep, [1.0], checkpoint=folder / f"teacher-{settings}.ckpt")
    images, flops, seconds = json.loads(cost.read_text())
    return path, Point(1.0, images, flops, seconds, None, [])


def _health(checks: list[HealthCheck]) -> dict[str, str]:
    """The monitors' columns, from the health checks so far."""
    if not checks:
        return {}
    values = {name: f"{checks[-1][name]:.3g}" for name in MONITORS if name in checks[-1]}
    return {**values, "verdict": diagnose(checks).title}


if __name__ == "__main__":
    run(main)
