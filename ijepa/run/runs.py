"""Runs training from a composed configuration: start or resume, train, finish."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ijepa import loggers
from ijepa.callbacks.rewind import Rewind
from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.distributed import sharding, slurm
from ijepa.evaluation import tasks
from ijepa.evaluation.context import label_sets
from ijepa.run import build, finalize, folders, init_options, resume, suggested
from ijepa.run.assembly import Run, Wire
from ijepa.run.columns import terms
from ijepa.run.resume import ResumePoint
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import write_config
from ijepa.run_folder.summary import finished_summary
from ijepa.sweeps import metric
from ijepa.util import commands
from ijepa.util.errors import ConfigError, InterruptedRunError


def train(composed: DictConfig, wire: Wire | None = None) -> float | None:
    """Starts or resumes the run that the configuration describes; returns the value of its metric, for sweeps.

    Args:
        composed: the configuration, not validated yet.
        wire: builds the run from it; None: `ijepa.run.build.run`, I-JEPA.

    Raises:
        UserError: when the run cannot be started or resumed as configured.
        InterruptedRunError: when a signal ended it.
    """
    wire = wire or build.run
    overrides = list(HydraConfig.get().overrides.task)
    if composed.get("resume") not in (None, "auto"):
        resumed = resume.resume(Path(str(composed.resume)).expanduser(), overrides)
        if composed.run_dir is not None and Path(composed.run_dir).expanduser().resolve() != resumed.folder.resolve():
            raise ConfigError("run_dir", composed.run_dir, "a resumed run stays in its folder; omit it")
        with folders.locked(resumed.folder):
            return _resume(resumed, wire)
    config = parse(TrainConfig, init_options.resolve_init(composed))
    if config.resume == "auto" and config.run_dir is None:
        raise ConfigError("resume", "auto", "resumes the run in run_dir; add run_dir=FOLDER")
    folder = folders.choose(config, overrides)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    wandb = config.logger.wandb
    if sweep and wandb is not None and wandb.group is None:
        grouped = config.logger.model_copy(update={"wandb": wandb.model_copy(update={"group": folder.parent.name})})
        config = config.model_copy(update={"logger": grouped})
    if folders.resumes_existing(config) and folder.exists():
        return _resume_or_restart(config, folder, wire)
    return _begin(config, folder, wire)


def _resume_or_restart(config: TrainConfig, folder: Path, wire: Wire) -> float | None:
    """Resumes the run in an existing ``folder``; starts it if there is no checkpoint, skips it if it is finished."""
    with folders.locked(folder):
        if resume.is_finished(folder, config):
            print(f"run_dir {folder}: finished already")
            return metric.value(config.metric, folder)
        resumed = resume.stopped_run(folder, config)
        if resumed is not None:
            return _resume(resumed, wire)
        if not folders.is_nonzero_rank():  # a slow process would delete what the first one writes
            RunFolder(folder).clear()
    return _begin(config, folder, wire)


def _begin(config: TrainConfig, folder: Path, wire: Wire) -> float | None:
    existed = folder.exists()
    try:
        run = _wire_checked(wire, config, folder)
    except BaseException:
        if config.run_dir is None and existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # created for this run, and still empty
        raise
    folders.create(folder)
    with folders.locked(folder):
        folders.validate_unused(folder)
        return execute(run)


def _resume(resumed: ResumePoint, wire: Wire) -> float | None:
    run = _wire_checked(wire, resumed.config, resumed.folder, resumed.step)
    resume.validate(resumed, run.module, run.data, run.module.schedule)
    done, files = resumed.step, RunFolder(run.folder)
    summary = finished_summary(files.summary)
    if done >= run.module.schedule.max_steps and summary is not None and summary["steps"] == done:
        print(f"run_dir {run.folder}: finished, all {done} steps are done")
        return metric.value(run.config.metric, run.folder)

    def delete_later() -> None:
        run.checkpoint.rewind(resumed.last, done)
        run.metrics.cut(done)
        files.drop_after(done, run.module.exports())
        if run.health is not None:
            run.health.write()
        else:
            files.health.unlink(missing_ok=True)  # no callback continues it
        changed_config = resume.later_config(resumed, run.data.identity)
        if changed_config is not None:
            write_config(files.next_config(done), changed_config)

    return execute(run, resumed.last, delete_later)


def _wire_checked(wire: Wire, config: TrainConfig, folder: Path, step: int = 0) -> Run:
    run = wire(config, folder, step)
    measured, _ = run.tasks()
    results = tasks.result_specs(measured, label_sets(run.data)) | terms(config)
    metric.check(config.metric, results, run.health is not None)
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
    if config.hardware.strategy != "single" and HydraConfig.get().mode == RunMode.MULTIRUN and not launched:
        problem = "in a sweep, start the processes of a job with torchrun or submitit, see docs/sweeps.md"
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    return run


def execute(run: Run, last: Path | None = None, delete_later: Callable[[], None] = lambda: None) -> float | None:
    """Trains, exports, evaluates and writes the run's folder.

    Args:
        run: from `ijepa.run.assembly.assemble`.
        last: checkpoint to resume from; None: a new run.
        delete_later: deletes what the run will write again; called when the first resumed step begins.

    Returns:
        The value of the run's metric.

    Raises:
        InterruptedRunError: when a signal ended the run; its checkpoint is written.
    """
    signals = run.checkpoint.signals
    rewind = Rewind(delete_later, signals)
    signals.watch(run.trainer)
    if run.config.hardware.strategy != "single":
        os.environ[folders.FOLDER_VARIABLE] = str(run.folder)  # for the processes that Lightning starts
    failed, stopped = True, 0
    try:
        with signals:
            result = _fit_and_finish(run, last, rewind)
        failed = False
        return result
    except InterruptedRunError as interrupted:
        stopped = interrupted.signal
        message = _interruption_message(run, rewind.done) if run.trainer.is_global_zero else ""
        raise InterruptedRunError(interrupted.signal, message) from None
    finally:
        os.environ.pop(folders.FOLDER_VARIABLE, None)  # the next run of this process has another folder
        if run.trainer.is_global_zero:
            if run.config.run_dir is None:
                with contextlib.suppress(OSError):
                    run.folder.rmdir()  # if nothing was written yet
            print(f"run_dir {run.folder}", flush=True)
        loggers.finish(run.trainer.loggers, failed)
        if stopped and run.trainer.is_global_zero and slurm.requeue(stopped):
            print("requeued: the job resumes the run when Slurm restarts it", flush=True)


def _fit_and_finish(run: Run, last: Path | None, rewind: Rewind) -> float | None:
    folder = run.folder
    _announce(run, resumed=last is not None)
    run.data.source.prepare()
    if run.trainer.is_global_zero:
        loggers.begin(run.trainer.loggers)  # first: if a logger fails, no file is written
        if last is None:
            write_config(RunFolder(folder).config, run.config.model_dump())
    run.trainer.callbacks.insert(0, rewind)  # type: ignore[attr-defined]  # Lightning adds the list
    run.trainer.fit(run.module, run.data, ckpt_path=last, weights_only=True)
    rewind.finish(run.trainer)
    number = sharding.max_over_ranks(run.checkpoint.signals.number or 0, run.trainer.strategy.root_device)
    if number:
        raise InterruptedRunError(number, "")
    finalize.finish(run, brief=HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN)
    return metric.value(run.config.metric, run.folder)


def _interruption_message(run: Run, started: bool) -> str:
    """How far the run got, and how to resume it."""
    steps, max_steps = run.trainer.global_step, run.module.schedule.max_steps
    done = f"stopped after step {steps} of {max_steps}" if started and steps else "stopped before the first step"
    if steps == max_steps:
        done += ", before the results"
    if not started and run.checkpoint.path.exists():
        return f"{done}; nothing has changed, run the same command again"
    hint = f"; resume with: {commands.command_line('train')} resume={run.folder}"
    return done + (hint if run.checkpoint.path.exists() else "")


def _announce(run: Run, resumed: bool) -> None:
    if not run.trainer.is_global_zero:
        return
    config, source, steps = run.config, run.data.source, run.module.schedule
    precision = "bf16-true" if run.module.execution.bf16 else run.trainer.precision
    counts = [f"{len(names)} classes" + (f" of {name}" if len(source.classes) > 1 else "")
              for name, names in source.classes.items()]  # fmt: skip
    classes = f", {', '.join(counts)}" if counts else ", no labels"
    print(f"run_dir {run.folder}")
    print(f"images   {len(source.train)} for training, {len(source.val)} for validation{classes}")
    for note in source.notes:
        print(f"         {note}")
    notes = [] if resumed else suggested.notes(config)
    for title, lines in (("model", run.module.describe()), ("data", notes), ("init", run.init_notes)):
        for number, line in enumerate(lines):
            print(f"{'' if number else title:<9}{line}")
    if run.data.masking is not None:
        print(f"masks    {config.masking.name}, {run.data.masking.context_patches} context patches per image")
    print(
        f"steps    {steps.max_steps} ({steps.warmup_steps} warm-up), effective batch size {config.data.batch_size}; "
        f"{run.trainer.strategy.root_device.type}, {precision}",
        flush=True,
    )
