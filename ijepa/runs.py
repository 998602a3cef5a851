"""A training run from a composed configuration to its folder: start, resume, results."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ijepa import build, checkpoint, parallel, plan, tables
from ijepa.build import Run
from ijepa.checks import parse
from ijepa.config import TrainConfig
from ijepa.errors import ConfigError, InterruptedRunError
from ijepa.evaluation import tasks
from ijepa.evaluation.features import pooled
from ijepa.evaluation.tasks import Row
from ijepa.files import write_json, write_text
from ijepa.models.pretrained import PretrainedEncoder

FOLDER_VARIABLE = "IJEPA_RUN_DIR"
"""Tells the processes that a launcher starts for other devices which folder the first one has chosen."""
HYDRA = ["hydra_setup", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}, "_self_"]
"""What config.yaml needs to be a primary configuration of its own."""
MAY_CHANGE = ("hardware", "logger", "callbacks", "task")
"""What a resumed run may change without changing what it computes."""


EXTENDS = ("schedule.epochs", "schedule.max_steps")
"""What it may change where the schedule allows it."""


def train(composed: DictConfig) -> float | None:
    """Runs, or resumes, what the configuration describes; returns the headline accuracy where images have labels."""
    overrides = list(HydraConfig.get().overrides.task)
    resumed = composed.get("resume")
    if resumed is not None:
        folder, last = _resumed(Path(str(resumed)).expanduser())
        config = parse(TrainConfig, _merge(composed, folder, overrides))
    else:
        config = parse(TrainConfig, composed)
        folder, last = _folder(config, overrides), None
    try:
        run = build.run(config, folder)
    except BaseException:
        if last is None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where it was made for this run, it is still empty
        raise
    if config.hardware.strategy != "single":
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            problem = "one process starts the others here, and cannot in a sweep; start the jobs one by one"
            raise ConfigError("hardware.strategy", config.hardware.strategy, problem)
        os.environ[FOLDER_VARIABLE] = str(folder)  # Lightning starts the other devices' processes with this environment
    if last is None:
        _make(folder)
    if last is not None:
        done = checkpoint.load(last).get("global_step", 0)
        if done >= run.module.plan.max_steps and (folder / "summary.json").exists():
            print(f"run_dir {folder}: finished, all {done} steps are done")
            return None
        _refuse_after_cooldown(folder, run, done)
        run.metrics.cut(done)
    return execute(run, last)


def execute(run: Run, last: Path | None = None) -> float | None:
    """Trains, exports, evaluates and writes the run's folder.

    Args:
        run: from `ijepa.build.run`.
        last: checkpoint to go on from.

    Raises:
        InterruptedRunError: when a signal ended it; the checkpoint is written.
    """
    try:
        return _execute(run, last)
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)  # the next run of this process has a folder of its own
        if run.trainer.is_global_zero:
            print(f"run_dir {run.folder}", flush=True)
        for logger in run.trainer.loggers:
            if isinstance(logger, WandbLogger):
                wandb.finish()  # the next job of a sweep is a run of its own


def _execute(run: Run, last: Path | None) -> float | None:
    folder = run.folder
    _announce(run)
    if run.trainer.is_global_zero and last is None:
        saved = {"defaults": HYDRA, **run.config.model_dump(), "run_dir": str(folder)}
        header = f"# Repeat: python train.py --config-dir {folder} --config-name config run_dir=NEW\n"
        write_text(folder / "config.yaml", header + OmegaConf.to_yaml(OmegaConf.create(saved)))
    run.trainer.fit(run.module, run.data, ckpt_path=last, weights_only=True)
    if run.checkpoint.signal is not None and run.trainer.global_step < run.module.plan.max_steps:
        done = f"stopped after step {run.trainer.global_step} of {run.module.plan.max_steps}"
        raise InterruptedRunError(run.checkpoint.signal, f"{done}; go on with: python train.py resume={folder}")
    return _finish(run)


def _finish(run: Run) -> float | None:
    state = parallel.full_state(run.module.jepa.target_encoder)
    if not run.trainer.is_global_zero:
        return None
    encoder = run.spec.build()
    encoder.load_state_dict(state)
    checkpoint.save_encoder(run.folder / "encoder.safetensors", encoder, run.spec, "target")
    summary: dict[str, Any] = {
        "steps": run.trainer.global_step,
        **run.recorder.totals(),
        "loss": run.recorder.loss,
        "not_images": run.data.source.not_images,
    }
    accuracy = None
    if tasks.has_labels(run.data):
        device = run.trainer.strategy.root_device  # after fit, the module is on the CPU
        pretrained = PretrainedEncoder(encoder, run.spec).to(device).eval()
        results = tasks.evaluate(run.config.task, pooled(pretrained), run.data, device, run.config.seed)
        rows = [Row("target encoder", results)]
        rows += tasks.baselines(run.config.task, run.spec, run.data, device, run.config.seed)
        for logger in run.trainer.loggers:
            row = {**run.recorder.totals(), **{f"val/{name}": value for name, value in results.items()}}
            logger.log_metrics(row, step=run.trainer.global_step)
        summary["results"] = {row.name: row.results for row in rows}
        accuracy = results[tasks.headline(run.config.task)]
        print(f"accuracy on {len(run.data.source.val)} validation images, %")
        Console().print(tables.accuracies(rows, run.config.task))
    summary["unreadable"] = sorted({*run.recorder.unreadable, *run.data.unreadable})
    write_json(run.folder / "summary.json", summary)
    for logger in run.trainer.loggers:
        logger.finalize("success")
    if summary["unreadable"]:
        print(f"{len(summary['unreadable'])} files could not be read; summary.json names them")
    print(f"{summary['images']} images, {summary['flops']:.3g} FLOPs, {summary['seconds']:.0f} s")
    print(f"next: python evaluate.py checkpoint={run.folder} task=logistic")
    return accuracy


def _announce(run: Run) -> None:
    if not run.trainer.is_global_zero:
        return
    config, source, steps = run.config, run.data.source, run.module.plan
    masking = run.data.masking
    assert masking is not None
    trained = (run.module.jepa.context_encoder, run.module.jepa.predictor)
    parameters = [sum(p.numel() for p in network.parameters()) for network in trained]
    rows, columns = run.spec.grid
    classes = f", {len(source.classes)} classes" if source.classes else ", no labels"
    print(f"run_dir {run.folder}")
    print(f"images   {len(source.train)} for training, {len(source.val)} for validation{classes}")
    for note in source.notes:
        print(f"         {note}")
    print(
        f"model    encoder {parameters[0] / 1e6:.1f} M, predictor {parameters[1] / 1e6:.1f} M parameters; "
        f"{rows}x{columns} patches of {run.spec.patch_size}x{run.spec.patch_size} pixels"
    )
    print(f"masks    {config.masking.name}, {masking.context_patches} context patches per image")
    print(
        f"steps    {steps.max_steps} of {config.data.batch_size} images, {steps.warmup_steps} of them warm-up; "
        f"{run.trainer.strategy.root_device.type}, {run.trainer.precision}",
        flush=True,
    )


def _folder(config: TrainConfig, overrides: list[str]) -> Path:
    """The new run's folder, free; the same for all processes of a run."""
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE])
    follower = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) > 0
    if config.run_dir is None and "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError("run_dir", None, "with torchrun every process needs to know the folder; add run_dir=FOLDER")
    if config.run_dir is not None:
        folder = Path(config.run_dir).expanduser()
        if sweep:
            folder /= _slug([item for item in overrides if not item.startswith("run_dir=")])
        if (folder / "config.yaml").exists() and not follower:
            resumable = (folder / "checkpoints" / "last.ckpt").exists()
            way = f"resume={folder} would go on with it" if resumable else "it has no checkpoint; remove it"
            raise ConfigError("run_dir", folder, f"holds a run; {way}, or give another run_dir")
    else:
        folder = _numbered(Path("runs"), config.data.source.rpartition(".")[2])
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("run_dir", folder, f"cannot be made: {error.strerror}") from None


def _refuse_after_cooldown(folder: Path, run: Run, done: int) -> None:
    """A run can be made longer only from before its cooldown."""
    loaded = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(loaded, dict)
    loaded.pop("defaults", None)
    old = parse(TrainConfig, {str(key): value for key, value in loaded.items()})
    before = plan.plan(old.schedule, old.optimizer, old.data.batch_size, len(run.data.source.train))
    constant = before.max_steps - before.cooldown_steps
    if before.max_steps != run.module.plan.max_steps and done > constant:
        problem = f"the checkpoint is after step {constant}, where the cooldown began; a run is extended from before it"
        raise ConfigError("schedule.max_steps", run.module.plan.max_steps, problem)


def _numbered(parent: Path, name: str) -> Path:
    """The next free folder, made at once: another run may start at the same moment."""
    _make(parent)
    while True:
        tails = [path.name.rpartition("-")[2] for path in parent.glob(f"{name}-*")]
        numbers = [int(tail) for tail in tails if tail.isdecimal()]
        folder = parent / f"{name}-{max(numbers, default=0) + 1:03}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def _slug(overrides: list[str]) -> str:
    """Overrides as a folder's name, without the characters that Hydra's grammar trips over."""
    text = "_".join(overrides).replace("=", "-")
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in text) or "default"
    return name if len(name) <= 180 else f"{name[:180]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _resumed(path: Path) -> tuple[Path, Path]:
    """A run's folder and its last checkpoint, from either."""
    if not path.exists():
        raise ConfigError("resume", path, "no such run folder or checkpoint")
    last = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    folder = path if path.is_dir() else path.parent.parent
    for needed in (folder / "config.yaml", last):
        if not needed.is_file():
            raise ConfigError("resume", path, f"no run to go on with: {needed} is missing")
    return folder, last


def _extendable(saved: dict[Any, Any]) -> bool:
    """Whether nothing before the cooldown depends on the run's length."""
    schedule = saved["schedule"]
    constant = all(schedule[name]["shape"] == "constant" for name in ("weight_decay", "momentum"))
    return constant and schedule["learning_rate"]["shape"] in ("constant", "cooldown")


def _merge(composed: DictConfig, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The saved configuration with what the command line changes, where that cannot change the results."""
    saved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    changed = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(saved, dict)
    assert isinstance(changed, dict)
    saved.pop("defaults", None)
    merged: dict[str, Any] = {str(key): value for key, value in saved.items()}
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        section, _, name = key.partition(".")
        if key in ("resume", "run_dir"):
            continue
        if key in EXTENDS and _extendable(saved):
            merged["schedule"] = {**merged["schedule"], name: changed["schedule"][name]}
        elif section in MAY_CHANGE and not name:
            merged[section] = changed[section]
        elif section in MAY_CHANGE or key in ("data.workers", "data.root"):
            merged[section][name] = changed[section][name]
        else:
            allowed = ", ".join([*MAY_CHANGE, "data.workers", "data.root", *(EXTENDS if _extendable(saved) else [])])
            problem = f"cannot change in a run that goes on (only {allowed}); leave it out, or start a new run"
            raise ConfigError(key, override.partition("=")[2], problem)
    return merged
