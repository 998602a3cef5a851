"""The end of a training run: exported networks, results of encoder and baselines, pictures, summary.json."""

import time
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from rich.console import Console
from torch import Tensor, nn

from ijepa import loggers
from ijepa.callbacks.pictures import PROJECTED, SHOWN, FeaturePictures
from ijepa.distributed import sharding
from ijepa.evaluation import pictures as drawing
from ijepa.evaluation import tables, tasks
from ijepa.evaluation.context import EvalContext, EvaluatedModel, label_sets
from ijepa.evaluation.runtime import Runtime
from ijepa.interop import timm
from ijepa.loggers import log_picture
from ijepa.models.pretrained import PretrainedEncoder, untrained_encoder
from ijepa.pictures.samples import samples
from ijepa.run import followups
from ijepa.run.assembly import Run
from ijepa.run_folder import RunFolder
from ijepa.run_folder.summary import write_summary
from ijepa.sweeps.metric import HEADLINE, METRICS
from ijepa.training.protocol import Sketches, TrainedEncoder
from ijepa.util import commands
from ijepa.util.files import write_safetensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ATTENTION_HEADS = 4
"""Attention heads that are drawn, each on its own."""


def finish(run: Run, brief: bool) -> None:
    """Writes the files and prints the results, on global rank 0; every process must call it.

    ``brief``: do not print the list of files and the next commands.
    """
    trained, exports = run.module.evaluated(), run.module.exports()
    parts = [*([trained] if trained else []), *exports.values()]
    states = {network: sharding.full_state_dict(network) for network in dict.fromkeys(map(_network, parts))}
    sketches = _sketches(run)
    run.trainer.strategy.barrier()  # a process that exits now would break the gather of the others
    if not run.trainer.is_global_zero:
        return
    files = RunFolder(run.folder)
    encoder = trained and _with_full_weights(trained, states)
    for name, part in exports.items():
        path = files.export(name)
        if isinstance(part, TrainedEncoder):
            network = encoder.network if encoder and part == trained else _with_full_weights(part, states).network
            timm.write(path, network, part.spec, part.which)
        else:
            write_safetensors(path, {key: value.contiguous() for key, value in states[part].items()}, {"format": "pt"})
    summary: dict[str, Any] = {
        "steps": run.trainer.global_step,
        **run.recorder.totals(),
        "loss": run.recorder.loss,
        "skipped_steps": int(run.module.skipped.total),
        "not_images": run.data.source.not_images,
        "best": {name: {"value": value, "step": step} for name, (value, step) in run.checkpoint.best.items()},
    }
    if run.health is not None and run.health.verdicts:
        summary["health"] = {"verdict": run.health.verdicts[-1].title, "seconds": run.health.seconds}
    chosen, skipped = run.tasks()
    for name, reason in skipped.items() if run.config.task.paper is not None else ():
        print(f"task=paper skips {name}: {reason}")
    if encoder is not None and chosen.with_metrics():
        names = label_sets(run.data)
        begun = time.perf_counter()
        runtime = Runtime(run.trainer.strategy.root_device, compiled=bool(run.config.hardware.compile))
        ctx = EvalContext(run.data, runtime, run.config.seed, folder=files.pictures)
        evaluated = EvaluatedModel(encoder.title, PretrainedEncoder(encoder.network, encoder.spec).eval())
        rows = [tasks.evaluate(chosen, evaluated, ctx)]
        if run.config.callbacks.baselines:
            rows += tasks.baselines(chosen, encoder.spec, ctx)
        for logger in run.trainer.loggers:
            values = {f"val/{name}": value for name, value in rows[0].values.items()}
            logger.log_metrics({**run.recorder.totals(), **values}, step=run.trainer.global_step)
        summary["results"] = {row.name: row.values for row in rows}
        described = tasks.plain_custom_specs(chosen)
        summary |= {METRICS: described} if described else {}
        headlines = tasks.headlines(chosen, rows[0], names)
        if headlines:  # retrieval without labels has no headline
            summary[HEADLINE] = sum(headlines.values()) / len(headlines)
        print(f"results on {len(run.data.source.val)} validation images, % ({time.perf_counter() - begun:.0f} s)")
        Console().print(tables.results_table(rows, chosen, names))
    summary["unreadable"] = sorted({*run.recorder.unreadable, *run.data.unreadable.values()})
    write_summary(files.summary, summary)
    if run.config.callbacks.pictures is not None:
        _draw(run, encoder, sketches)
    log = run.trainer.loggers
    loggers.log_files(log, "encoder", [*map(files.export, exports), files.config])
    loggers.log_files(log, "checkpoints", [files.checkpoints.last, *files.checkpoints.all_best().values()])
    for logger in log:
        logger.finalize("success")
    if run.health is not None and run.health.verdicts:
        print(run.health.summary())
    if summary["unreadable"]:
        print(f"{len(summary['unreadable'])} files could not be read; summary.json lists them")
    print(f"{summary['images']} images, {summary['flops']:.3g} FLOPs, {summary['seconds']:.0f} s")
    if brief or run.is_step:
        return
    for file in (files.metrics, *files.results(exports)):
        if file.exists():
            print(f"         {file}")
    if encoder is not None:
        print(f"next: {followups.evaluate(run.folder, run.config)}")
        print(f"      {commands.command_line('train')} data=folder data.root=IMAGES   # your own images", flush=True)


def _network(part: TrainedEncoder | nn.Module) -> nn.Module:
    return part.module if isinstance(part, TrainedEncoder) else part


def _with_full_weights(encoder: TrainedEncoder, states: dict[nn.Module, dict[str, Tensor]]) -> TrainedEncoder:
    """A copy with unsharded weights, on the CPU."""
    network = encoder.spec.build()
    network.load_state_dict(states[encoder.module])
    return encoder._replace(network=network)


def _sketches(run: Run) -> Sketches | None:
    """What the module draws; with sharded weights, which no process has whole, every process takes part."""
    sharded = isinstance(run.trainer.strategy, ModelParallelStrategy)
    drawn = run.module.draws and run.config.callbacks.pictures is not None
    if not drawn or not (sharded or run.trainer.is_global_zero):
        return None
    images = run.data.examples(PROJECTED)[:SHOWN]
    if not len(images):
        return None
    run.module.to(run.trainer.strategy.root_device)  # Lightning has moved it to the CPU
    with torch.compiler.set_stance("force_eager"):
        return run.module.sketches(images, run.data.masking)


def _draw(run: Run, encoder: TrainedEncoder | None, sketches: Sketches | None) -> None:
    """Draws the pictures of a finished run: masks, features, similarity, attention, progress and learning curves."""
    images, step = run.data.examples(PROJECTED), run.trainer.global_step
    shown = images[:SHOWN]
    figures: dict[str, drawing.DrawFigure] = {}
    if encoder is not None and len(images):
        runtime, spec = Runtime(run.trainer.strategy.root_device), encoder.spec
        network = PretrainedEncoder(encoder.network, spec).eval()
        view = drawing.EncoderPictures(encoder.title, network, images, len(shown), runtime)
        middle = view.patch_at([0.5, 0.5])
        if run.data.masking is not None:
            figures = {"masks": drawing.masks(run.data, shown, spec.patch_size, run.config.seed, step)["masks"]}
        figures |= {
            "features": lambda: view.components(untrained_encoder(spec, run.config.seed)),
            "similarity": lambda: view.similarity([middle]),
            "attention": lambda: view.attention(middle, -1, ATTENTION_HEADS),
        }
    if sketches is not None:
        figures["samples"] = lambda: samples(*sketches)
    for callback in run.trainer.callbacks:  # type: ignore[attr-defined]  # Lightning adds the list
        if isinstance(callback, FeaturePictures):
            figures["progress"] = callback.progress
    figures |= {name: make for name, make in drawing.curves(run.metrics.path).items() if name == "curves"}

    def log(name: str, figure: "Figure") -> None:
        log_picture(run.trainer.loggers, f"final/{name}", figure, step)

    drawing.write_figures(figures, RunFolder(run.folder).pictures, log)
