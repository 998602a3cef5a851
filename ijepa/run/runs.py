"""Runs training from a composed configuration: start or resume, train, finish."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ijepa import loggers
from ijepa.callbacks.rewind import Rewind
from ijepa.config import TrainConfig
from ijepa.config.checks import parse
from ijepa.config.trust import typed_trust
from ijepa.distributed import devices, sharding, slurm
from ijepa.evaluation import tasks
from ijepa.evaluation.context import label_sets
from ijepa.health import kinds
from ijepa.interop import timm
from ijepa.run import build, decoders, finalize, folders, followups, init_options, resume, suggested, teacher_run
from ijepa.run.assembly import Run, Wire
from ijepa.run.columns import terms
from ijepa.run.resume import ResumePoint
from ijepa.run_folder import RunFolder
from ijepa.run_folder.config import write_config
from ijepa.run_folder.summary import finished_summary
from ijepa.sweeps import metric
from ijepa.util.errors import ConfigError, InterruptedRunError
from ijepa.util.processes import is_rank_zero
from ijepa.util.signals import ending_launched


def train(composed: DictConfig, wire: Wire | None = None) -> float | None:
    """Starts or resumes the run that the configuration describes; returns the value of its metric, for sweeps.

    Args:
        composed: the configuration, not validated yet.
        wire: builds the run from it; None: `ijepa.run.build.run`, I-JEPA.

    Raises:
        UserError: when the run cannot be started or resumed as configured.
        InterruptedRunError: when a signal ended it.
    """
    wire = wire or _wire
    overrides = list(HydraConfig.get().overrides.task)
    if composed.get("resume") not in (None, "auto"):
        resumed = resume.point_from_path(Path(str(composed.resume)).expanduser(), overrides)
        if composed.run_dir is not None and Path(composed.run_dir).expanduser().resolve() != resumed.folder.resolve():
            raise ConfigError("run_dir", composed.run_dir, "a resumed run stays in its folder; omit it")
        with folders.locked(resumed.folder):
            return _resume(resumed, wire)
    config = parse(TrainConfig, _resolved(composed))
    if config.resume == "auto" and config.run_dir is None:
        raise ConfigError("resume", "auto", "resumes the run in run_dir; add run_dir=FOLDER")
    folder = folders.choose(config, overrides)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        config = _group_in_wandb(config, folder)
    with folders.announced(folder, config.hardware), ending_launched():
        if folders.resumes_existing(config) and folder.exists():
            return _resume_or_restart(config, folder, wire)
        return _begin(config, folder, wire)


def _resolved(composed: DictConfig) -> DictConfig | dict[str, Any]:
    """The configuration with what ``init`` or a decoder's ``checkpoint`` determine."""
    if composed.get("decoder") is not None:
        return decoders.load("ijepa.run.decoder_run").resolve(composed)
    return init_options.resolve_init(composed)


def _wire(config: TrainConfig, folder: Path, step: int) -> Run:
    """The run of I-JEPA, or of a decoder of its representations."""
    return (build.run if config.decoder is None else decoders.load("ijepa.run.decoder_run").run)(config, folder, step)


def _group_in_wandb(config: TrainConfig, folder: Path) -> TrainConfig:
    """Sets the W&B group, unless it is given, so that W&B shows a sweep's jobs together."""
    wandb = config.logger.wandb
    if wandb is None or wandb.group is not None:
        return config
    grouped = config.logger.model_copy(update={"wandb": wandb.model_copy(update={"group": folder.parent.name})})
    return config.model_copy(update={"logger": grouped})


def _resume_or_restart(config: TrainConfig, folder: Path, wire: Wire) -> float | None:
    """Resumes the stopped run in ``folder``, skips it if it is finished.

    Without a complete checkpoint, deletes the run's files and starts it again.
    """
    with folders.locked(folder):
        if resume.is_finished(folder, config):
            return _skip_finished(config, folder)
        resumed = resume.point_in_folder(folder, config)
        if resumed is not None:
            return _resume(resumed, wire)
        if is_rank_zero():  # only one process clears: a slower one would delete what rank 0 has written since
            RunFolder(folder).clear()
    return _begin(config, folder, wire)  # outside the lock: `_begin` takes it again


def _begin(config: TrainConfig, folder: Path, wire: Wire) -> float | None:
    created = config.run_dir is None and folder.exists()
    try:
        if config.teacher is not None:
            teacher_run.train_teacher(config, folder, wire, _wire_checked, _resume_or_restart)
        run = _wire_checked(wire, config, folder)
    except BaseException:
        if created:  # `folders.choose` has just created it to reserve its number; leave no empty folder behind
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    folders.create(folder)
    with folders.locked(folder):
        folders.validate_unused(folder)
        if config.teacher is not None:
            run.recorder.add(teacher_run.spent(folder))
        return execute(run)


def _resume(resumed: ResumePoint, wire: Wire) -> float | None:
    run = _wire_checked(wire, resumed.config, resumed.folder, resumed.step)
    resume.validate(resumed, run.module, run.data, run.module.schedule)
    step, files = resumed.step, RunFolder(run.folder)
    summary = finished_summary(files.summary)
    if step >= run.module.schedule.max_steps and summary is not None and summary["steps"] == step:
        return _skip_finished(run.config, run.folder)

    def rewind_files() -> None:
        """Returns the run's files to the checkpoint's step and saves the changed configuration.

        Called once the checkpoint has loaded, just before the first resumed step, so that a failed start loses nothing.
        """
        run.checkpoint.rewind(resumed.checkpoint, step)
        run.metrics.cut(step)
        files.drop_after(step, run.module.exports())
        if run.health is not None:
            run.health.write()
        else:  # health checks are now off: verdicts after the checkpoint would be stale
            files.health.unlink(missing_ok=True)
        changed_config = resume.later_config(resumed, run.data.identity)
        if changed_config is not None:
            write_config(files.next_config(step), changed_config, typed_trust(run.config))

    return execute(run, resumed.checkpoint, rewind_files)


def _skip_finished(config: TrainConfig, folder: Path) -> float | None:
    hint = f" For other tasks: {followups.evaluate(folder, config)} task=..." if config.decoder is None else ""
    print(f"run_dir {folder}: finished already; nothing is trained or evaluated.{hint}")
    return metric.value(config.metric, folder)


def _wire_checked(wire: Wire, config: TrainConfig, folder: Path, step: int = 0) -> Run:
    """Builds the run.

    Raises:
        ConfigError: if the run would lack ``metric`` or that has no better direction, or if a sweep would let Lightning
            start processes.
    """
    run = wire(config, folder, step)
    measured, _ = run.tasks()
    results = tasks.result_specs(measured, label_sets(run.data)) | terms(config)
    needs_direction = HydraConfig.get().sweeper.get("direction", "auto") == "auto"  # Optuna's sweeper can be given one
    measures = [spec.name for spec in kinds.measures(config.decoder is not None)] if run.health is not None else []
    metric.check(config.metric, results, measures, needs_direction)
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
    if config.hardware.strategy != "single" and HydraConfig.get().mode == RunMode.MULTIRUN and not launched:
        problem = (
            "a sweep cannot start several processes per job; add hydra/launcher=submitit_slurm, "
            "or start it with torchrun, see docs/sweeps.md"
        )
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    return run


def execute(run: Run, checkpoint: Path | None = None, rewind_files: Callable[[], None] = lambda: None) -> float | None:
    """Trains, exports, evaluates and writes the run's folder.

    Args:
        run: from `ijepa.run.assembly.assemble`.
        checkpoint: to resume from; None: a new run.
        rewind_files: returns the run's files to the step of ``checkpoint``, see `Rewind`.

    Returns:
        The value of the run's metric.

    Raises:
        InterruptedRunError: when a signal ended the run; its checkpoint is written.
    """
    signals = run.checkpoint.signals
    rewind = Rewind(rewind_files, signals)
    signals.watch(run.trainer)
    failed, signal_number = True, 0
    try:
        with signals:
            result = _fit_and_finish(run, checkpoint, rewind)
        failed = False
        return result
    except InterruptedRunError as interrupted:
        signal_number, message = interrupted.signal, ""
        if run.trainer.is_global_zero:
            message = _interruption_message(run, rewind.has_run, resumed=checkpoint is not None)
        raise InterruptedRunError(signal_number, message) from None
    finally:
        if run.trainer.is_global_zero:
            if run.config.run_dir is None:
                with contextlib.suppress(OSError):
                    run.folder.rmdir()  # if nothing was written yet
            if run.folder.exists():
                print(f"run_dir {run.folder}", flush=True)
        loggers.finish(run.trainer.loggers, failed)
        if signal_number and run.trainer.is_global_zero:
            slurm.requeue(signal_number)


def _fit_and_finish(run: Run, checkpoint: Path | None, rewind: Rewind) -> float | None:
    folder = run.folder
    _announce(run, resumed=checkpoint is not None)
    run.data.source.prepare()
    if run.trainer.is_global_zero:
        loggers.begin(run.trainer.loggers)  # first: if a logger fails, no file is written
        if checkpoint is None:
            for name, part in run.module.inputs().items():  # before the configuration, with which a run has begun
                timm.write(RunFolder(folder).export(name), part.network, part.spec, part.which)
            write_config(RunFolder(folder).config, run.config.model_dump(), typed_trust(run.config))
    # First: other callbacks must find the rewound files. Lightning adds the list of callbacks.
    run.trainer.callbacks.insert(0, rewind)  # type: ignore[attr-defined]
    with devices.tf32(run.config.hardware.tf32):
        run.trainer.fit(run.module, run.data, ckpt_path=checkpoint, weights_only=True)
    rewind.finish(run.trainer)
    # any rank may have received the signal
    signal_number = sharding.max_over_ranks(run.checkpoint.signals.number or 0, run.trainer.strategy.root_device)
    if signal_number:
        raise InterruptedRunError(signal_number, "")
    finalize.finish(run, brief=HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN)
    return metric.value(run.config.metric, run.folder)


def _interruption_message(run: Run, started: bool, resumed: bool) -> str:
    """How far the run got, and how to resume it."""
    steps, max_steps = run.trainer.global_step, run.module.schedule.max_steps
    progress = f"stopped before {'any new' if resumed else 'the first'} step"
    if started and steps:
        progress = f"stopped after step {steps} of {max_steps}"
    if steps == max_steps:
        progress += ", before the results"
    if not started and run.checkpoint.path.exists():
        return f"{progress}; nothing has changed, run the same command again"
    if run.checkpoint.path.exists():
        return f"{progress}; resume with: {followups.resume(run.folder, run.config)}"
    return progress if run.config.teacher is None else f"{progress}; {followups.again(run.folder)}"


def _announce(run: Run, resumed: bool) -> None:
    if not run.trainer.is_global_zero:
        return
    config, source, schedule = run.config, run.data.source, run.module.schedule
    precision = "bf16-true" if run.module.execution.bf16 else run.trainer.precision
    counts = [f"{len(names)} classes" + (f" of {name}" if len(source.classes) > 1 else "")
              for name, names in source.classes.items()]  # fmt: skip
    classes = f", {', '.join(counts)}" if counts else ", no labels"
    print(f"run_dir {run.folder}")
    print(f"images   {len(source.train)} for training, {len(source.val)} for validation{classes}")
    for note in source.notes:
        print(f"         {note}")
    notes = [] if resumed or config.decoder is not None else suggested.notes(config)
    for title, lines in (("model", run.module.describe()), ("data", notes), ("init", run.init_notes)):
        for number, line in enumerate(lines):
            print(f"{'' if number else title:<9}{line}")
    if run.data.masking is not None:
        minimum = "at least " if getattr(config.masking, "surplus", None) == "keep" else ""
        count = f"{minimum}{run.data.masking.context_patches} context patches per image"
        print(f"masks    {config.masking.name}, {count}")
    print(
        f"steps    {schedule.max_steps} ({schedule.warmup_steps} warm-up), "
        f"effective batch size {config.data.batch_size}; {run.trainer.strategy.root_device.type}, {precision}",
        flush=True,
    )
