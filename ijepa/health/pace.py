"""The interval between health checks."""

import math

from ijepa.training.protocol import MonitorFlops

SHARE, PANELS = 0.0125, 100
"""Maximum fraction of a run's FLOPs for health checks, and their maximum number. They run in float32, which takes two
to three times as long as bf16 training: less than 3 % of the time."""
CROPS, CROPPED, PREDICTED = 4, 8, 4
"""Crops per image for LiDAR; one in how many images is cropped, and one in how many has predictions."""


def steps_between(look: MonitorFlops, step: float, images: int, steps: int, saved: int | None) -> int:
    """The smallest interval with which health checks take at most `SHARE` of the run and number at most `PANELS`.

    The interval is aligned with checkpoints, so that each checkpoint has a verdict.

    Args:
        look: FLOPs of one held-out image; every device looks at all of them.
        step: FLOPs of a step on one device.
        images: held-out images per health check.
        steps: steps of the run.
        saved: steps between checkpoints; None if they are not written by steps.
    """
    seen, predicted = images + images // CROPPED * CROPS, images // PREDICTED
    cost = seen * look.features + predicted * look.predictions
    least = max(math.ceil(cost / step / SHARE), math.ceil(steps / PANELS), 1)
    whole = saved or 10 ** math.ceil(math.log10(least))
    if least > whole:
        return -(-least // whole) * whole
    return next(every for every in range(least, whole + 1) if whole % every == 0)
