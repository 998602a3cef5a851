"""The end of a training run: export of the encoder, results compared with baselines, pictures, summary.json."""

from typing import TYPE_CHECKING, Any

from rich.console import Console

from ijepa import loggers
from ijepa.callbacks.pictures import PROJECTED, SHOWN, FeaturePictures
from ijepa.distributed import sharding
from ijepa.evaluation import pictures as drawing
from ijepa.evaluation import tables, tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.runtime import Runtime
from ijepa.interop import timm
from ijepa.loggers import log_picture
from ijepa.models.encoder import Encoder
from ijepa.models.pretrained import PretrainedEncoder, untrained
from ijepa.run.build import Run
from ijepa.sweeps.metric import HEADLINE
from ijepa.util.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = ("masks", "features", "similarity", "attention", "curves", "progress")
RESULTS = ("encoder.safetensors", "summary.json", *(f"pictures/{name}.png" for name in PICTURES))
"""What a run writes at its end, but for its metrics."""
HEADS = 4
"""Heads that are shown one by one."""


def finish(run: Run, brief: bool) -> None:
    """Writes and tells all of it, on the first process; ``brief``: without the files and what to type next."""
    state = sharding.full_state(run.module.jepa.target_encoder)
    run.trainer.strategy.barrier()  # a process that ended now would cut off one that still waits for its shard
    if not run.trainer.is_global_zero:
        return
    encoder = run.spec.build()
    encoder.load_state_dict(state)
    timm.write(run.folder / "encoder.safetensors", encoder, run.spec, "target")
    summary: dict[str, Any] = {
        "steps": run.trainer.global_step,
        **run.recorder.totals(),
        "loss": run.recorder.loss,
        "not_images": run.data.source.not_images,
        "best": {name: {"value": value, "step": step} for name, (value, step) in run.checkpoint.best.items()},
    }
    if run.health is not None and run.health.verdicts:
        summary["health"] = {"verdict": run.health.verdicts[-1].title, "seconds": run.health.seconds}
    chosen, left = tasks.supported_tasks(run.config.task, run.data)
    for name, why in left.items() if run.config.task.paper is not None else ():
        print(f"task=paper skips {name}: {why}")
    if chosen.measured():
        names = label_sets(run.data)
        runtime = Runtime(run.trainer.strategy.root_device, compiled=run.config.hardware.compile)
        ctx = EvalContext(run.data, runtime, run.config.seed, folder=run.folder / "pictures")
        evaluated = EvaluatedModel("target encoder", PretrainedEncoder(encoder, run.spec).eval())
        rows = [tasks.evaluate(chosen, evaluated, ctx)]
        if run.config.callbacks.baselines:
            rows += tasks.baselines(chosen, run.spec, ctx)
        for logger in run.trainer.loggers:
            values = {f"val/{name}": value for name, value in rows[0].values.items()}
            logger.log_metrics({**run.recorder.totals(), **values}, step=run.trainer.global_step)
        summary["results"] = {row.name: row.values for row in rows}
        found = tasks.headlines(chosen, rows[0], names)
        if found:  # retrieval of images without labels has none
            summary[HEADLINE] = sum(found.values()) / len(found)
        print(f"results on {len(run.data.source.val)} validation images, %")
        Console().print(tables.results(rows, chosen, names))
    summary["unreadable"] = sorted({*run.recorder.unreadable, *run.data.unreadable.values()})
    write_json(run.folder / "summary.json", summary)
    _draw(run, encoder)
    log = run.trainer.loggers
    loggers.log_files(log, "encoder", [run.folder / "encoder.safetensors", run.folder / "config.yaml"])
    loggers.log_files(log, "checkpoints", [run.checkpoint.path, *sorted(run.checkpoint.folder.glob("best-*.ckpt"))])
    for logger in log:
        logger.finalize("success")
    if run.health is not None and run.health.verdicts:
        print(run.health.summary())
    if summary["unreadable"]:
        print(f"{len(summary['unreadable'])} files could not be read; summary.json lists them")
    print(f"{summary['images']} images, {summary['flops']:.3g} FLOPs, {summary['seconds']:.0f} s")
    if brief:
        return
    for name in ("metrics.csv", *RESULTS):
        if (run.folder / name).exists():
            print(f"         {run.folder / name}")
    print(f"next: python evaluate.py checkpoint={run.folder}")
    print("      python train.py data=folder data.root=IMAGES   # your own images", flush=True)


def _draw(run: Run, encoder: Encoder) -> None:
    """The pictures of a finished run: masks, features, and learning curves."""
    images, step = run.data.examples(PROJECTED), run.trainer.global_step
    shown = images[:SHOWN]
    figures: dict[str, drawing.Make] = {}
    if len(images):
        runtime = Runtime(run.trainer.strategy.root_device)
        network = PretrainedEncoder(encoder, run.spec).eval()
        view = drawing.View("target encoder", network, images, len(shown), runtime)
        middle = view.place([0.5, 0.5])
        figures = {
            "masks": drawing.masks(run.data, shown, run.spec.patch_size, run.config.seed, step)["masks"],
            "features": lambda: view.components(untrained(run.spec, run.config.seed)),
            "similarity": lambda: view.similarity([middle]),
            "attention": lambda: view.attention(middle, -1, HEADS),
        }
        for callback in run.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning adds the list
            if isinstance(callback, FeaturePictures):
                figures["progress"] = callback.progress
    figures["curves"] = drawing.curves(run.metrics.path)["curves"]

    def log(name: str, figure: "Figure") -> None:
        log_picture(run.trainer.loggers, f"final/{name}", figure, step)

    drawing.draw(figures, run.folder / "pictures", log)
