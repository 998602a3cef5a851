"""Shapes of schedules: pure functions of the step, so that a resumed run computes the same values.

``step`` counts from 0 to ``total``; from ``total`` on, the value is the end value.
"""

import math
from collections.abc import Callable

Shape = Callable[[float], float]
"""Maps progress in [0, 1] to the fraction of the way from start to end, in [0, 1]."""

SHAPES: dict[str, Shape] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 - 0.5 * math.cos(math.pi * progress),
    "constant": lambda progress: 0.0,
}


def interpolate(shape: str, start: float, end: float, step: float, total: float) -> float:
    """From ``start`` at step 0 to ``end`` at ``total``, along ``shape`` (``constant``: always ``start``)."""
    progress = min(max(step / total, 0.0), 1.0) if total > 0 else 1.0
    return start + (end - start) * SHAPES[shape](progress)


def warmup(shape: str, start: float, peak: float, end: float, step: float, warmup_steps: float, total: float) -> float:
    """Linear from ``start`` to ``peak`` over ``warmup_steps``, then along ``shape`` to ``end`` at ``total``."""
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    return interpolate(shape, peak, end, step - warmup_steps, total - warmup_steps)


def cooldown(
    start: float, peak: float, end: float, step: float, warmup_steps: float, cooldown_steps: float, total: float
) -> float:
    """Linear warm-up, then ``peak``, then linear to ``end`` over the last ``cooldown_steps`` before ``total``.

    No value before the cooldown depends on ``total``, so a run can be extended from any checkpoint before it.
    """
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    return interpolate("linear", peak, end, step - (total - cooldown_steps), cooldown_steps)
