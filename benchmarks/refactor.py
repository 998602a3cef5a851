"""Does a refactor change any result? ``python -m benchmarks.refactor BASE [HEAD]``.

Runs the same commands on two revisions of this project, on one machine (bits differ between kinds of CPU): the default
on scenes, objective=l2, pixels as targets, both kinds of bf16, two ranks, a resumed run, and an evaluation. Compares
every number in metrics.csv, all tensors of the last checkpoint and of the exported encoder (by value: parameters may be
renamed), and the results. Exits with 1 if anything differs.

BASE and HEAD are git revisions; without HEAD, the working tree is compared. Results of a revision are cached in --work:
the next comparison with the same BASE runs only HEAD.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from ijepa.run_folder import RunFolder
from ijepa.run_folder.evaluation import evaluation_file
from ijepa.run_folder.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "data.scenes.train=192", "data.scenes.val=64", "data.batch_size=16", "data.workers=1", "model.width=48",
    "model.depth=2", "predictor.width=24", "predictor.depth=1", "hardware.accelerator=cpu", "schedule.max_steps=24",
    "schedule.warmup_steps=4", "callbacks.log_every_steps=4", "callbacks.checkpoint_every_steps=12",
    "callbacks.health_images=32", "callbacks.pictures=1", "callbacks.evaluate_every_epochs=1",
    "hardware.precision=32-true", "task=knn",
]  # fmt: skip
CONFIGURATIONS: dict[str, list[list[str]]] = {
    "default": [["task=[knn,logistic]"]],
    "l2": [["objective=l2"]],
    "pixels": [["objective=pixels"]],
    "bf16": [["hardware.precision=bf16-mixed"]],
    "bf16-true": [["hardware.precision=bf16-true"]],
    "two ranks": [["hardware=ddp", "hardware.devices=2", "hardware.accelerator=cpu", "hardware.precision=32-true"]],
    "resumed": [["schedule=constant", "schedule.max_steps=12", "schedule.warmup_steps=4"], ["schedule.max_steps=24"]],
}
"""Overrides on top of `SMALL`; each further list of overrides resumes the run."""
EVALUATION = ["task=[knn,linear,lowshot,retrieval]", "task.linear.epochs=2", "task.linear.layers=[1,2]", "hardware=cpu"]
CLOCKS = ("seconds", "images_per_second")
"""Columns that differ between identical runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="git revision to compare with")
    parser.add_argument("head", nargs="?", help="git revision; default: the working tree")
    default = Path(tempfile.gettempdir()) / "ijepa-refactor"
    parser.add_argument("--work", type=Path, default=default, help="folder for temporary files and cached results")
    parser.add_argument("--only", nargs="+", choices=[*CONFIGURATIONS, "evaluation"], help="run only these")
    options = parser.parse_args()
    base = results(revision(options.base), options.work, options.only)
    head = results(revision(options.head) if options.head else None, options.work, options.only)
    table = Table("configuration", "numbers", "tensors", "result")
    different = 0
    for name in base:
        found = list(differences(base[name], head.get(name, {})))
        different += bool(found)
        numbers = sum(len(row) for row in base[name].get("rows", [])) + len(base[name].get("results", {}))
        tensors = sum(base[name].get("tensors", {}).values())
        table.add_row(name, str(numbers), str(tensors), "; ".join(found[:3]) or "identical")
    Console(width=140).print(table)
    sys.exit(int(different > 0))


def revision(name: str) -> str:
    """The commit hash of a git revision."""
    done = subprocess.run(
        ["git", "rev-parse", "--verify", f"{name}^{{commit}}"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"error: {name}: no such revision")
    return done.stdout.strip()


def results(commit: str | None, work: Path, only: list[str] | None) -> dict[str, Any]:
    """Numbers and tensors of each configuration at ``commit``, cached; None: in the working tree, not cached."""
    work.mkdir(parents=True, exist_ok=True)
    wanted = only or [*CONFIGURATIONS, "evaluation"]
    cache = work / f"{commit}.json"
    known = json.loads(cache.read_text()) if commit and cache.exists() else {}
    missing = [name for name in wanted if name not in known]
    if missing:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            code = Path(folder) / "code"
            if commit:
                subprocess.run(
                    ["git", "worktree", "add", "--detach", code, commit], cwd=ROOT, check=True, capture_output=True
                )
            try:
                known |= dict(measure(code if commit else ROOT, Path(folder), work / "cache", missing))
            finally:
                if commit:
                    subprocess.run(["git", "worktree", "remove", "--force", code], cwd=ROOT, check=True)
    if commit:
        cache.write_text(json.dumps(known))
    return {name: known[name] for name in wanted}


def measure(code: Path, folder: Path, cache: Path, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (first, *resumes) in CONFIGURATIONS.items():
        run = folder / name.replace(" ", "-")
        if name not in names and not (name == "default" and "evaluation" in names):
            continue
        command(code, cache, "train.py", *SMALL, *first, f"run_dir={run}")
        for overrides in resumes:
            command(code, cache, "train.py", f"resume={run}", *overrides)
        if name in names:
            yield name, read(run)
        if name == "default" and "evaluation" in names:
            command(code, cache, "evaluate.py", f"checkpoint={run}", *EVALUATION, f"output={run / 'out'}", "cache=null")
            metrics = json.loads(evaluation_file(run / "out").read_text())
            yield "evaluation", {"results": flat({key: metrics[key] for key in ("results", "intervals")})}
        shutil.rmtree(run)


def command(code: Path, cache: Path, script: str, *overrides: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(code), "IJEPA_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, script, *overrides], cwd=code, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{code}: {script} {' '.join(overrides)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def read(run: Path) -> dict[str, Any]:
    files = RunFolder(run)
    table = read_metrics(files.metrics)
    cells = [zip(table.columns, row, strict=True) for row in table.rows]
    rows = [{name: cell for name, cell in row if name not in CLOCKS} for row in cells]
    checkpoint = torch.load(files.checkpoints.last, weights_only=True)
    tensors = Counter(digest(tensor) for tensor in tensors_in(checkpoint))
    tensors += Counter(digest(tensor) for tensor in load_file(files.encoder).values())
    summary = json.loads(files.summary.read_text())
    return {"rows": rows, "tensors": dict(tensors), "results": flat({"results": summary["results"]})}


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of weights and optimiser state; the state of callbacks shows in metrics.csv."""
    for part in (value["state_dict"], *value["optimizer_states"]):
        yield from tensors_below(part)


def tensors_below(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_below(item)


def digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(
        f"{tuple(tensor.shape)} {tensor.dtype}".encode() + flat.view(torch.uint8).numpy().tobytes()
    ).hexdigest()


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flattened: dict[str, Any] = {}
    for name, value in values.items():
        flattened |= flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flattened


def differences(base: dict[str, Any], head: dict[str, Any]) -> Iterator[str]:
    for before, after in zip(base.get("rows", []), head.get("rows", []), strict=False):
        for name, value in before.items():
            if after.get(name) != value:
                yield f"step {before['step']}: {name} {value} -> {after.get(name)}"
    if len(base.get("rows", [])) != len(head.get("rows", [])):
        yield f"{len(base.get('rows', []))} -> {len(head.get('rows', []))} rows"
    for name, value in base.get("results", {}).items():
        if head.get("results", {}).get(name) != value:
            yield f"{name} {value} -> {head.get('results', {}).get(name)}"
    before, after = Counter(base.get("tensors", {})), Counter(head.get("tensors", {}))
    if before != after:
        yield f"{sum((before - after).values())} tensors differ"


if __name__ == "__main__":
    main()
