"""Multi-block masks: sizes as published."""

import math

import numpy as np
from mask_checks import PAPER, multiblock

from ijepa.masking import Reference


def test_scale_and_aspect_are_independent():
    sampler = multiblock((32, 32))
    sizes = np.array([sampler.sizes(0, step)[0] for step in range(4000)], dtype=float)
    area, aspect = sizes.prod(1), sizes[:, 0] / sizes[:, 1]
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.06  # 1 / sqrt(4000) = 0.016; rounding to patches adds a little
    assert 0.75 * 0.85 < aspect.min() < 0.85 < 1.35 < aspect.max() < 1.5 * 1.15
    assert len(np.unique(sizes, axis=0)) >= 30
    assert 0.135 < area.min() / 1024 < 0.16 < 0.19 < area.max() / 1024 < 0.215  # rounded to patches


def test_default_context_is_near_the_reference_s_average():
    for grid in ((14, 14), (16, 16)):
        ours = multiblock(grid).context_patches
        theirs = Reference(grid, **PAPER, min_keep=10)
        average = np.mean([theirs.sample(0, step, np.arange(128)).context.shape[1] for step in range(12)])
        assert abs(ours / average - 1) < 0.2


def test_published_block_sizes():
    """Square grids: the target's area and aspect and the context's side as the paper has them."""
    sampler = multiblock((14, 14))
    for step in range(200):
        (height, width), context = sampler.sizes(3, step)
        assert 0.15 * 196 - 6 < height * width < 0.2 * 196 + 6
        assert 0.75 * 0.8 < height / width < 1.5 * 1.25
        assert context[0] == context[1]
        assert math.sqrt(0.85) * 14 - 0.5 <= context[0] <= 14
