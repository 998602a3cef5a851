"""The interval between health checks."""

import math

MAX_FRACTION, MAX_CHECKS = 0.0125, 100
"""Maximum fraction of a run's FLOPs for health checks, and their maximum number. Health checks run in float32, which
takes two to three times as long as bf16, so they take less than 3 % of the time."""
CROPS_PER_IMAGE, CROP_EVERY, PREDICT_EVERY = 4, 8, 4
"""Crops per image for LiDAR; every how many images one is cropped, and every how many one has predictions."""


def steps_between(check_flops: float, step_flops: float, steps: int, checkpoint_every: int | None) -> int:
    """The smallest interval, in steps, with at most `MAX_CHECKS` health checks and `MAX_FRACTION` of the FLOPs.

    It divides the checkpoint interval or, if that allows too few steps between checks, is a multiple of it.

    Args:
        check_flops: of a health check on one device; every device processes all images.
        step_flops: of a training step on one device.
        steps: steps of the run.
        checkpoint_every: steps between checkpoints; None: no such interval.
    """
    least = max(math.ceil(check_flops / step_flops / MAX_FRACTION), math.ceil(steps / MAX_CHECKS), 1)
    whole = checkpoint_every or 10 ** math.ceil(math.log10(least))
    if least > whole:
        return -(-least // whole) * whole
    return next(every for every in range(least, whole + 1) if whole % every == 0)
