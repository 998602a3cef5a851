"""The run before a run: a small encoder is trained on pixels, and its features are what the run predicts.

SALT (arXiv 2509.24317): a frozen teacher may be much smaller than its student.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ijepa.config import Objective, Schedule, TeacherRun, TrainConfig, Vit
from ijepa.config.checks import check
from ijepa.distributed import ranks
from ijepa.run import folders, followups, resume
from ijepa.run.assembly import Run, Wire
from ijepa.run.encoders import spec
from ijepa.run_folder import RunFolder
from ijepa.run_folder.summary import finished_summary
from ijepa.util.errors import ConfigError, InterruptedRunError, UserError
from ijepa.util.processes import is_rank_zero


def train_teacher(
    config: TrainConfig,
    folder: Path,
    wire: Wire,
    checked: Callable[[Wire, TrainConfig, Path], Run],
    start: Callable[[TrainConfig, Path, Wire], object],
) -> None:
    """Trains the frozen encoder of the run in ``folder``, or what is left to train, in a run of its own.

    Args:
        config: of the run; its ``teacher`` is not None.
        folder: of the run.
        wire: builds both runs.
        checked: builds a run and checks it.
        start: starts a run in its folder, or resumes it.

    Raises:
        UserError: when either run cannot be started.
        InterruptedRunError: when a signal ended the teacher's run.
    """
    check(config)
    own_teacher = config.objective.model_copy(update={"target_depths": None})
    images = checked(wire, config.model_copy(update={"teacher": None, "objective": own_teacher}), folder).data.identity
    target = RunFolder(folder).teacher_run
    own = teacher_config(config, folder)
    try:
        if resume.is_finished(target, own):
            _check_images(resume.point_in_folder(target, own), images, target)
            return
        folders.create(target)
        if is_rank_zero():
            print("teacher  is trained first, in a folder of its own", flush=True)
        start(own, target, _as_step(wire))
    except InterruptedRunError as interrupted:
        message = str(interrupted)
        if message:
            message = f"the teacher {message.partition(';')[0]}"
            if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
                message += f"; {followups.again(folder)}"
        raise InterruptedRunError(interrupted.signal, message) from None
    except UserError as error:  # about keys that the teacher's run has other values of
        raise UserError(f"teacher: {error}") from None
    ranks.wait_for_all()  # rank 0 writes the encoder
    if is_rank_zero():
        print("the run itself:", flush=True)


def spent(folder: Path) -> dict[str, Any]:
    """The totals of the run that has trained the teacher of the run in ``folder``."""
    return finished_summary(RunFolder(RunFolder(folder).teacher_run).summary) or {}


def _as_step(wire: Wire) -> Wire:
    def build(config: TrainConfig, folder: Path, step: int) -> Run:
        run = wire(config, folder, step)
        run.is_step = True
        return run

    return build


def _check_images(point: resume.ResumePoint | None, images: dict[str, Any], folder: Path) -> None:
    if point is not None and point.images != images:
        problem = "was trained on other images; restore them, remove that folder, or give another run_dir"
        raise ConfigError("run_dir", folder, problem)


def teacher_config(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration of the run that trains the teacher of the run in ``folder``, whose ``teacher`` is not None."""
    teacher = config.teacher
    assert teacher is not None
    callbacks = config.callbacks.model_copy(
        update={"evaluate_every_epochs": None, "pictures": None, "baselines": False}
    )
    changes = {
        "run_dir": str(RunFolder(folder).teacher_run),
        "resume": "auto",
        "init": None,
        "init_channels": None,
        "metric": None,
        "teacher": None,
        "model": _model(config, teacher),
        "predictor": config.predictor.model_copy(update={"width": teacher.predictor_width}),
        "objective": _pixels(config.objective),
        "optimizer": config.optimizer.model_copy(update={"lr": teacher.lr}),
        "schedule": _shortened(config.schedule, teacher.length),
        "callbacks": callbacks,
    }
    return config.model_copy(update=changes)


def _model(config: TrainConfig, teacher: TeacherRun) -> Vit:
    """The run's own vision transformer in other sizes, initialised for pixels; of another network, only its patches."""
    sizes = {"width": teacher.width, "depth": teacher.depth, "heads": teacher.heads, "init": "xavier"}
    if isinstance(config.model, Vit):
        return config.model.model_copy(update={**sizes, "positions": "index", "position_grid": None})
    patch = spec(config.model, config.data).patch_size
    return Vit(patch_size=patch, mlp_ratio=4.0, positions="index", position_grid=None, **sizes)


def _pixels(objective: Objective) -> Objective:
    """Normalised pixels as targets, with the run's regularisers."""
    changes = {"target": "pixels", "target_depths": None, "standardize_targets": False, "renormalize_targets": False,
               "pixel_weight": 0.0}  # fmt: skip
    return objective.model_copy(update=changes)


def _shortened(schedule: Schedule, length: float) -> Schedule:
    """The same schedule over ``length`` times the steps."""
    epochs, steps = ("epochs", "warmup_epochs", "cooldown_epochs"), ("max_steps", "warmup_steps", "cooldown_steps")
    found = {name: getattr(schedule, name) for name in (*epochs, *steps)}
    changes = {name: found[name] * length for name in epochs if found[name] is not None}
    changes |= {name: int(found[name] * length) for name in steps if found[name] is not None}
    if changes.get("max_steps") is not None:
        changes["max_steps"] = max(changes["max_steps"], 1)
    return schedule.model_copy(update=changes)
