"""A training run from a composed configuration to its folder: start, resume, results."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ijepa import build, folders, loggers, parallel, resume, starting, tables
from ijepa.build import Run
from ijepa.callbacks.pictures import PROJECTED, SHOWN, Pictures, drop_later
from ijepa.callbacks.rewind import Rewind
from ijepa.checks import parse
from ijepa.config import TrainConfig, WandbLogger
from ijepa.errors import ConfigError, InterruptedRunError
from ijepa.evaluation import pictures as drawing
from ijepa.evaluation import tasks
from ijepa.evaluation.bench import Bench, Subject, label_sets
from ijepa.evaluation.features import Runtime
from ijepa.files import write_json, write_text
from ijepa.interop import timm
from ijepa.loggers import log_picture
from ijepa.models.encoder import Encoder
from ijepa.models.pretrained import PretrainedEncoder, untrained
from ijepa.resume import Resumed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HYDRA = ["hydra_setup", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}, "_self_"]
"""What config.yaml needs to be a primary configuration of its own."""
PICTURES = ("masks", "features", "similarity", "attention", "curves", "progress")
RESULTS = ("encoder.safetensors", "summary.json", *(f"pictures/{name}.png" for name in PICTURES))
"""What a run writes at its end, but for its metrics."""
HEADS = 4
"""Heads that are shown one by one."""


def train(composed: DictConfig) -> float | None:
    """Runs, or resumes, what the configuration describes; returns the headline accuracy where images have labels."""
    overrides = list(HydraConfig.get().overrides.task)
    if composed.get("resume") is not None:
        resumed = resume.resume(Path(str(composed.resume)).expanduser(), overrides)
        if composed.run_dir is not None and Path(composed.run_dir).expanduser().resolve() != resumed.folder.resolve():
            raise ConfigError("run_dir", composed.run_dir, "a resumed run stays in its folder; leave it out")
        with folders.claimed(resumed.folder):
            return _resume(resumed)
    config = parse(TrainConfig, starting.settled(composed))
    folder = folders.choose(config, overrides)
    if isinstance(config.logger, WandbLogger) and config.logger.group is None:
        grouped = config.logger.model_copy(update={"group": folders.sweep(config)})
        config = config.model_copy(update={"logger": grouped})
    try:
        run = _build(config, folder)
    except BaseException:
        if config.run_dir is None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # made for this run, and still empty
        raise
    folders.make(folder)
    with folders.claimed(folder):
        folders.refuse_used(folder)
        return execute(run)


def _resume(resumed: Resumed) -> float | None:
    run = _build(resumed.config, resumed.folder, resumed.step)
    resume.refuse(resumed, run.module, run.data, run.module.plan)
    done = resumed.step
    if done >= run.module.plan.max_steps and _exported(run.folder, done):
        print(f"run_dir {run.folder}: finished, all {done} steps are done")
        return None

    def drop() -> None:
        run.checkpoint.rewind(resumed.last, done)
        run.metrics.cut(done)
        for name in RESULTS:  # of another length of the run
            (run.folder / name).unlink(missing_ok=True)
        drop_later(run.folder, done)
        if run.health is not None:
            run.health.write()
        else:
            (run.folder / "health.json").unlink(missing_ok=True)  # nobody goes on with it
        for path in resume.later_configs(resumed):
            path.unlink()
        lasting = resume.lasting(resumed, run.data.identity)
        if lasting is not None:
            _write_config(resume.next_config(resumed), lasting, run.folder)

    return execute(run, resumed.last, drop)


def _exported(folder: Path, steps: int) -> bool:
    """Whether the results in ``folder`` are those after so many steps."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not there yet, or no JSON any more
        return False
    return isinstance(summary, dict) and summary.get("steps") == steps


def _build(config: TrainConfig, folder: Path, step: int = 0) -> Run:
    run = build.run(config, folder, step)
    if config.hardware.strategy != "single" and HydraConfig.get().mode == RunMode.MULTIRUN:
        problem = "one process starts the others here, and cannot in a sweep; start the jobs one by one"
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    return run


def execute(run: Run, last: Path | None = None, drop: Callable[[], None] = lambda: None) -> float | None:
    """Trains, exports, evaluates and writes the run's folder.

    Args:
        run: from `ijepa.build.run`.
        last: checkpoint to go on from.
        drop: removes what the run will write anew; called when the run goes on.

    Raises:
        InterruptedRunError: when a signal ended it; the checkpoint is written.
    """
    signals = run.checkpoint.signals
    rewind = Rewind(drop, signals)
    signals.watch(run.trainer)
    if run.config.hardware.strategy != "single":
        os.environ[folders.FOLDER_VARIABLE] = str(run.folder)  # for the processes that Lightning starts
    failed = True
    try:
        with signals:
            result = _execute(run, last, rewind)
        failed = False
        return result
    except InterruptedRunError as interrupted:
        message = _interrupted(run, rewind.done) if run.trainer.is_global_zero else ""
        raise InterruptedRunError(interrupted.signal, message) from None
    finally:
        os.environ.pop(folders.FOLDER_VARIABLE, None)  # the next run of this process has a folder of its own
        if run.trainer.is_global_zero:
            if run.config.run_dir is None:
                with contextlib.suppress(OSError):
                    run.folder.rmdir()  # where nothing was written yet
            print(f"run_dir {run.folder}", flush=True)
        loggers.finish(run.trainer.loggers, failed)


def _execute(run: Run, last: Path | None, rewind: Rewind) -> float | None:
    folder = run.folder
    _announce(run)
    run.data.source.prepare()
    if run.trainer.is_global_zero:
        loggers.begin(run.trainer.loggers)  # first: where one cannot, there is no run yet
        if last is None:
            _write_config(folder / "config.yaml", run.config.model_dump(), folder)
    run.trainer.callbacks.insert(0, rewind)  # type: ignore[attr-defined]  # Lightning adds the list
    run.trainer.fit(run.module, run.data, ckpt_path=last, weights_only=True)
    rewind.finish(run.trainer)
    number = parallel.greatest(run.checkpoint.signals.number or 0, run.trainer.strategy.root_device)
    if number:
        raise InterruptedRunError(number, "")
    return _finish(run)


def _interrupted(run: Run, started: bool) -> str:
    """How far the run came, and how to go on."""
    steps, whole = run.trainer.global_step, run.module.plan.max_steps
    done = f"stopped after step {steps} of {whole}" if started and steps else "stopped before the first step"
    if steps == whole:
        done += ", before the results"
    if not started and run.checkpoint.path.exists():
        return f"{done}; nothing has changed, give the same command again"
    return done + (f"; go on with: python train.py resume={run.folder}" if run.checkpoint.path.exists() else "")


def _finish(run: Run) -> float | None:
    state = parallel.full_state(run.module.jepa.target_encoder)
    run.trainer.strategy.barrier()  # a process that ended now would cut off one that still waits for its shard
    if not run.trainer.is_global_zero:
        return None
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
    accuracy = None
    chosen, left = tasks.possible(run.config.task, run.data)
    for name, why in left.items() if run.config.task.paper is not None else ():
        print(f"task=paper leaves out {name}: {why}")
    if chosen.measured():
        names = label_sets(run.data)
        runtime = Runtime(run.trainer.strategy.root_device, compiled=run.config.hardware.compile)
        bench = Bench(run.data, runtime, run.config.seed, folder=run.folder / "pictures")
        subject = Subject("target encoder", PretrainedEncoder(encoder, run.spec).eval())
        rows = [tasks.evaluate(chosen, subject, bench)]
        rows += tasks.baselines(chosen, run.spec, bench)
        for logger in run.trainer.loggers:
            values = {f"val/{name}": value for name, value in rows[0].values.items()}
            logger.log_metrics({**run.recorder.totals(), **values}, step=run.trainer.global_step)
        summary["results"] = {row.name: row.values for row in rows}
        found = tasks.headlines(chosen, rows[0], names)
        accuracy = sum(found.values()) / len(found) if found else None  # retrieval of images without labels has none
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
        print(f"{len(summary['unreadable'])} files could not be read; summary.json names them")
    print(f"{summary['images']} images, {summary['flops']:.3g} FLOPs, {summary['seconds']:.0f} s")
    for name in ("metrics.csv", *RESULTS):
        if (run.folder / name).exists():
            print(f"         {run.folder / name}")
    print(f"next: python evaluate.py checkpoint={run.folder}")
    print("      python train.py data=folder data.root=IMAGES   # your own images", flush=True)
    return accuracy


def _draw(run: Run, encoder: Encoder) -> None:
    """The pictures of a finished run: what was predicted from what, what the encoder sees, and how it came there."""
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
            if isinstance(callback, Pictures):
                figures["progress"] = callback.progress
    figures["curves"] = drawing.curves(run.metrics.path)["curves"]

    def log(name: str, figure: "Figure") -> None:
        log_picture(run.trainer.loggers, f"final/{name}", figure, step)

    drawing.draw(figures, run.folder / "pictures", log)


def _announce(run: Run) -> None:
    if not run.trainer.is_global_zero:
        return
    config, source, steps = run.config, run.data.source, run.module.plan
    masking = run.data.masking
    assert masking is not None
    trained = (run.module.jepa.context_encoder, run.module.jepa.predictor)
    parameters = [sum(p.numel() for p in network.parameters()) for network in trained]
    rows, columns = run.spec.grid
    counts = [f"{len(names)} classes" + (f" of {name}" if len(source.classes) > 1 else "")
              for name, names in source.classes.items()]  # fmt: skip
    classes = f", {', '.join(counts)}" if counts else ", no labels"
    print(f"run_dir {run.folder}")
    print(f"images   {len(source.train)} for training, {len(source.val)} for validation{classes}")
    for note in source.notes:
        print(f"         {note}")
    print(
        f"model    encoder {parameters[0] / 1e6:.1f} M, predictor {parameters[1] / 1e6:.1f} M parameters; "
        f"{rows}x{columns} patches of {run.spec.patch_size}x{run.spec.patch_size} pixels"
    )
    for number, note in enumerate(run.start):
        print(f"{'' if number else 'init':<9}{note}")
    print(f"masks    {config.masking.name}, {masking.context_patches} context patches per image")
    print(
        f"steps    {steps.max_steps} of {config.data.batch_size} images, {steps.warmup_steps} of them warm-up; "
        f"{run.trainer.strategy.root_device.type}, {'bf16-true' if run.module.bf16 else run.trainer.precision}",
        flush=True,
    )


def _write_config(path: Path, values: dict[str, Any], folder: Path) -> None:
    saved = {"defaults": HYDRA, **values, "run_dir": str(folder), "resume": None, "force": False}
    header = f"# Repeat: python train.py --config-dir {folder} --config-name {path.stem} run_dir=NEW\n"
    write_text(path, header + OmegaConf.to_yaml(OmegaConf.create(saved)))
