"""The interval between health checks."""

import math

from ijepa.training.flops import PretrainingFlops

SHARE, PANELS = 0.0125, 100
"""Maximum fraction of a run's FLOPs for health checks, and their maximum number. They run in float32, which takes two
to three times as long as bf16 training: less than 3 % of the time."""
CROPS, CROPPED, PREDICTED = 4, 8, 4
"""Crops per image for LiDAR; one in how many images is cropped, and one in how many has predictions."""


def steps_between(
    cost: PretrainingFlops, masks: tuple[int, int, int], images: int, batch_size: int, steps: int, saved: int | None
) -> int:
    """The smallest interval with which health checks take at most `SHARE` of the run and number at most `PANELS`.

    The interval is aligned with checkpoints, so that each checkpoint has a verdict.

    Args:
        cost: FLOPs of one image.
        masks: C, T and K.
        images: held-out images per health check.
        batch_size: images per step and device; every device processes all held-out images.
        steps: steps of the run.
        saved: steps between checkpoints; None if they are not written by steps.
    """
    seen, predicted = images + images // CROPPED * CROPS, images // PREDICTED
    look = seen * cost.encoder_flops() + predicted * (cost.forward_flops(*masks) - cost.encoder_flops())
    least = max(math.ceil(look / (batch_size * cost.step_flops(*masks)) / SHARE), math.ceil(steps / PANELS), 1)
    whole = saved or 10 ** math.ceil(math.log10(least))
    if least > whole:
        return -(-least // whole) * whole
    return next(every for every in range(least, whole + 1) if whole % every == 0)
