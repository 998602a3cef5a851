"""Runs training from a composed configuration: start, resume, results."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ijepa import loggers
from ijepa.callbacks.pictures import drop_later
from ijepa.callbacks.rewind import Rewind
from ijepa.config import TrainConfig, WandbLogger
from ijepa.config.checks import parse
from ijepa.distributed import sharding, slurm
from ijepa.evaluation import tasks
from ijepa.evaluation.context import label_sets
from ijepa.run import build, finalize, folders, init_options, resume
from ijepa.run.build import Run
from ijepa.run.resume import Resumed
from ijepa.sweeps import metric
from ijepa.util.errors import ConfigError, InterruptedRunError
from ijepa.util.files import write_text

CHOSEN = {"sweeper": "grid", "job_logging": "none", "hydra_logging": "none"}
HYDRA = ["hydra_setup", *({f"override hydra/{group}": name} for group, name in CHOSEN.items()), "_self_"]
"""What config.yaml needs to be a primary configuration of its own."""


def train(composed: DictConfig) -> float | None:
    """Starts or resumes the configured run; returns its metric, for sweeps."""
    overrides = list(HydraConfig.get().overrides.task)
    if composed.get("resume") not in (None, "auto"):
        resumed = resume.resume(Path(str(composed.resume)).expanduser(), overrides)
        if composed.run_dir is not None and Path(composed.run_dir).expanduser().resolve() != resumed.folder.resolve():
            raise ConfigError("run_dir", composed.run_dir, "a resumed run stays in its folder; omit it")
        with folders.claimed(resumed.folder):
            return _resume(resumed)
    config = parse(TrainConfig, init_options.resolve_init(composed))
    if config.resume == "auto" and config.run_dir is None:
        raise ConfigError("resume", "auto", "resumes the run in run_dir; add run_dir=FOLDER")
    folder = folders.choose(config, overrides)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if sweep and isinstance(config.logger, WandbLogger) and config.logger.group is None:
        grouped = config.logger.model_copy(update={"group": folder.parent.name})
        config = config.model_copy(update={"logger": grouped})
    if folders.resumes_existing(config) and folder.exists():
        return _again(config, folder)
    return _begin(config, folder)


def _again(config: TrainConfig, folder: Path) -> float | None:
    """Resumes the run in ``folder``, if there is one."""
    with folders.claimed(folder):
        if resume.finished(folder, config):
            print(f"run_dir {folder}: finished before")
            return metric.value(config.metric, folder)
        resumed = resume.again(folder, config)
        if resumed is not None:
            return _resume(resumed)
        if not folders.is_nonzero_rank():  # a process that comes late would clear what the first one has begun
            resume.clear(folder)
    return _begin(config, folder)


def _begin(config: TrainConfig, folder: Path) -> float | None:
    there = folder.exists()
    try:
        run = _build(config, folder)
    except BaseException:
        if config.run_dir is None and there:
            with contextlib.suppress(OSError):
                folder.rmdir()  # made for this run, and still empty
        raise
    folders.make(folder)
    with folders.claimed(folder):
        folders.validate_unused(folder)
        return execute(run)


def _resume(resumed: Resumed) -> float | None:
    run = _build(resumed.config, resumed.folder, resumed.step)
    resume.validate(resumed, run.module, run.data, run.module.schedule)
    done = resumed.step
    if done >= run.module.schedule.max_steps and _exported(run.folder, done):
        print(f"run_dir {run.folder}: finished, all {done} steps are done")
        return metric.value(run.config.metric, run.folder)

    def drop() -> None:
        run.checkpoint.rewind(resumed.last, done)
        run.metrics.cut(done)
        for name in finalize.RESULTS:  # of another length of the run
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
    measured, _ = tasks.supported_tasks(config.task, run.data)
    metric.check(config.metric, tasks.promised(measured, label_sets(run.data)), run.health is not None)
    launched = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
    if config.hardware.strategy != "single" and HydraConfig.get().mode == RunMode.MULTIRUN and not launched:
        problem = "in a sweep, start the processes of a job with torchrun or submitit, see docs/sweeps.md"
        raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
    return run


def execute(run: Run, last: Path | None = None, drop: Callable[[], None] = lambda: None) -> float | None:
    """Trains, exports, evaluates and writes the run's folder.

    Args:
        run: from `ijepa.run.build.run`.
        last: checkpoint to resume from.
        drop: removes what the run will write again; called when the first resumed step begins.

    Raises:
        InterruptedRunError: if a signal ended it; the checkpoint is written.
    """
    signals = run.checkpoint.signals
    rewind = Rewind(drop, signals)
    signals.watch(run.trainer)
    if run.config.hardware.strategy != "single":
        os.environ[folders.FOLDER_VARIABLE] = str(run.folder)  # for the processes that Lightning starts
    failed, stopped = True, 0
    try:
        with signals:
            result = _execute(run, last, rewind)
        failed = False
        return result
    except InterruptedRunError as interrupted:
        stopped = interrupted.signal
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
        if stopped and run.trainer.is_global_zero and slurm.requeue(stopped):
            print("requeued: the job resumes the run when Slurm restarts it", flush=True)


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
    number = sharding.greatest(run.checkpoint.signals.number or 0, run.trainer.strategy.root_device)
    if number:
        raise InterruptedRunError(number, "")
    finalize.finish(run, brief=HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN)
    return metric.value(run.config.metric, run.folder)


def _interrupted(run: Run, started: bool) -> str:
    """How far the run got, and how to resume it."""
    steps, whole = run.trainer.global_step, run.module.schedule.max_steps
    done = f"stopped after step {steps} of {whole}" if started and steps else "stopped before the first step"
    if steps == whole:
        done += ", before the results"
    if not started and run.checkpoint.path.exists():
        return f"{done}; nothing has changed, run the same command again"
    return done + (f"; resume with: python train.py resume={run.folder}" if run.checkpoint.path.exists() else "")


def _announce(run: Run) -> None:
    if not run.trainer.is_global_zero:
        return
    config, source, steps = run.config, run.data.source, run.module.schedule
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
    print(f"masks    {config.masking.name}, {masking.context_patches} of {rows * columns} patches are context")
    print(
        f"steps    {steps.max_steps} ({steps.warmup_steps} warm-up), effective batch size {config.data.batch_size}; "
        f"{run.trainer.strategy.root_device.type}, {'bf16-true' if run.module.bf16 else run.trainer.precision}",
        flush=True,
    )


def _write_config(path: Path, values: dict[str, Any], folder: Path) -> None:
    saved = {"defaults": HYDRA, **values, "run_dir": str(folder), "resume": None, "force": False}
    header = f"# Repeat: python train.py --config-dir {folder} --config-name {path.stem} run_dir=NEW\n"
    write_text(path, header + OmegaConf.to_yaml(OmegaConf.create(saved)))
