"""A run's length in steps, and the learning rate, weight decay and EMA momentum of each step."""

from dataclasses import dataclass
from typing import TypeVar

from ijepa.config import Optimizer, Schedule
from ijepa.training import curves
from ijepa.util.errors import ConfigError, UserError


@dataclass(frozen=True)
class TrainingSchedule:
    """Learning rate and weight decay of steps 0, 1, ..., ``max_steps`` - 1.

    As in the reference implementation, step i has the values of the curves at i + 1: the last step has the end value.
    """

    max_steps: int
    warmup_steps: int
    cooldown_steps: int
    peak_lr: float
    schedule: Schedule

    def lr(self, step: int) -> float:
        """The learning rate of ``step``."""
        curve = self.schedule.learning_rate
        start, end = curve.start * self.peak_lr, curve.end * self.peak_lr
        if curve.shape == "cooldown":
            return curves.cooldown(
                start, self.peak_lr, end, step + 1, self.warmup_steps, self.cooldown_steps, self.max_steps
            )
        return curves.warmup(curve.shape, start, self.peak_lr, end, step + 1, self.warmup_steps, self.max_steps)

    def weight_decay(self, step: int) -> float:
        """The weight decay of ``step``."""
        curve = self.schedule.weight_decay
        return curves.interpolate(curve.shape, curve.start, curve.end, step + 1, self.max_steps)

    def values(self, step: int) -> dict[str, float]:
        """All scheduled values, by the names under which they are logged."""
        return {"lr": self.lr(step), "weight_decay": self.weight_decay(step)}


@dataclass(frozen=True)
class EMASchedule(TrainingSchedule):
    """Adds the EMA momentum; as in the reference implementation, step i has the value of its curve at i, not i + 1."""

    def momentum(self, step: int) -> float:
        """The EMA momentum of the target encoder in ``step``."""
        curve = self.schedule.momentum
        return curves.interpolate(curve.shape, curve.start, curve.end, step, self.max_steps)

    def values(self, step: int) -> dict[str, float]:
        return {**super().values(step), "momentum": self.momentum(step)}


ScheduleT = TypeVar("ScheduleT", bound=TrainingSchedule)


def training_schedule(
    schedule: Schedule, optimizer: Optimizer, batch_size: int, images: int, kind: type[ScheduleT]
) -> ScheduleT:
    """The schedule in steps, for a configuration in epochs or steps.

    Args:
        schedule: the section of the configuration.
        optimizer: the section of the configuration; has the peak learning rate.
        batch_size: effective batch size.
        images: number of training images.
        kind: `EMASchedule`, or `TrainingSchedule` for a module without a target encoder.

    Raises:
        UserError: when the run has no length, or warm-up and cooldown are longer than the run.
    """
    per_epoch = images / batch_size
    if schedule.max_steps is not None:
        total = schedule.max_steps
    elif schedule.epochs is not None:
        total = max(round(schedule.epochs * per_epoch), 1)
    else:
        raise UserError("schedule.epochs and schedule.max_steps are both null; set one of them")
    lengths = {}
    for part in ("warmup", "cooldown"):
        steps, epochs = getattr(schedule, f"{part}_steps"), getattr(schedule, f"{part}_epochs")
        key, value = (f"schedule.{part}_epochs", epochs) if steps is None else (f"schedule.{part}_steps", steps)
        lengths[part] = round(epochs * per_epoch) if steps is None else steps
        if part == "cooldown" and schedule.learning_rate.shape != "cooldown":
            lengths[part] = 0
        if sum(lengths.values()) > total:
            subject = "warm-up and cooldown are" if part == "cooldown" else "the warm-up is"
            problem = f"{subject} longer ({sum(lengths.values())} steps) than the run ({total} steps)"
            raise ConfigError(key, value, f"{problem}; lower it, e.g. schedule.{part}_steps={total // 10}")
    peak = optimizer.lr * (batch_size / 256 if optimizer.lr_per_256 else 1.0)
    return kind(total, lengths["warmup"], lengths["cooldown"], peak, schedule)
