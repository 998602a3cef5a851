"""How often a run's health can be looked at."""

import math

from ijepa.training.protocol import MonitorFlops

SHARE, PANELS = 0.0125, 100
"""How much of a run's operations the looks may take, and how many there are at most. They are in float32, which takes
two to three times as long where training is in bf16: less than 3 % of the time."""
CROPS, CROPPED, PREDICTED = 4, 8, 4
"""Crops of each image of which there are some, for LiDAR; of how many images one has crops, and one predictions."""


def steps_between(look: MonitorFlops, step: float, images: int, steps: int, saved: int | None) -> int:
    """So few steps between two looks that they take `SHARE` of the run, and are no more than `PANELS`.

    Checkpoints are written after steps that are looked at: each should be known by how healthy it is.

    Args:
        look: FLOPs of one held-out image; every device looks at all of them.
        step: FLOPs of a step on one device.
        images: held-out images, of which a look takes all.
        steps: of the run.
        saved: steps between checkpoints; None where there is no such number.
    """
    seen, predicted = images + images // CROPPED * CROPS, images // PREDICTED
    cost = seen * look.features + predicted * look.predictions
    least = max(math.ceil(cost / step / SHARE), math.ceil(steps / PANELS), 1)
    whole = saved or 10 ** math.ceil(math.log10(least))
    if least > whole:
        return -(-least // whole) * whole
    return next(every for every in range(least, whole + 1) if whole % every == 0)
