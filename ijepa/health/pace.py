"""How often a run's health can be looked at."""

import math

from ijepa.training.flops import PretrainingFlops

SHARE, PANELS = 0.0125, 100
"""How much of a run's operations the looks may take, and how many there are at most. They are in float32, which takes
two to three times as long where training is in bf16: less than 3 % of the time."""
CROPS, CROPPED, PREDICTED = 4, 8, 4
"""Crops of each image of which there are some, for LiDAR; of how many images one has crops, and one predictions."""


def steps_between(
    cost: PretrainingFlops, masks: tuple[int, int, int], images: int, batch_size: int, steps: int, saved: int | None
) -> int:
    """So few steps between two looks that they take `SHARE` of the run, and are no more than `PANELS`.

    Checkpoints are written after steps that are looked at: each should be known by how healthy it is.

    Args:
        cost: of one image.
        masks: C, T and K.
        images: held-out images, of which a look takes all.
        batch_size: images per step and device; every device looks at all.
        steps: of the run.
        saved: steps between checkpoints; None where there is no such number.
    """
    seen, predicted = images + images // CROPPED * CROPS, images // PREDICTED
    look = seen * cost.encoder_flops() + predicted * (cost.forward_flops(*masks) - cost.encoder_flops())
    least = max(math.ceil(look / (batch_size * cost.step_flops(*masks)) / SHARE), math.ceil(steps / PANELS), 1)
    whole = saved or 10 ** math.ceil(math.log10(least))
    if least > whole:
        return -(-least // whole) * whole
    return next(every for every in range(least, whole + 1) if whole % every == 0)
