"""The run before a run: a small encoder is trained on pixels, and its features are what the run predicts.

SALT (arXiv 2509.24317): a frozen teacher may be much smaller than its student.
"""

from pathlib import Path

from ijepa.config import Objective, Schedule, Tasks, TeacherRun, TrainConfig, Vit
from ijepa.run.encoders import spec
from ijepa.run_folder import RunFolder


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
        "task": config.task if config.task.knn is None else Tasks(knn=config.task.knn),
    }
    return config.model_copy(update=changes)


def without_teacher(config: TrainConfig) -> TrainConfig:
    """The same run with its own moving average as the teacher: to check all else before a teacher is trained."""
    objective = config.objective.model_copy(update={"target_depths": None})
    return config.model_copy(update={"teacher": None, "objective": objective})


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
    changes |= {name: round(found[name] * length) for name in steps if found[name] is not None}
    if changes.get("max_steps") is not None:
        changes["max_steps"] = max(changes["max_steps"], 1)
    return schedule.model_copy(update=changes)
