"""Random and rasterized masks."""

import numpy as np
from mask_checks import grids_of

from ijepa.masking import Random, Rasterized


def test_surplus_patches_are_dropped_at_random():
    """Where every patch is as likely to be allowed as any other, each is as likely to stay."""
    sampler = Random((6, 6), 1 / 36, context_patches=10)
    counts = np.zeros(36)
    for step in range(40):
        counts += grids_of(sampler.sample(2, step, np.arange(500)), 36)[0].numpy().sum(0)
    expected = 40 * 500 * 10 / 36
    assert ((counts - expected) ** 2 / expected).sum() < 66.6  # chi-squared, 35 degrees of freedom, p = 0.001


def test_quadrants_are_the_whole_grid():
    masks = Rasterized((8, 8), None).sample(0, 0, np.arange(16))
    context, targets = grids_of(masks, 64)
    assert masks.targets.shape == (16, 3, 16)
    assert ((context + targets) == 1).all()
