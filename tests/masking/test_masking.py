"""What every sampler promises: no leak, constant sizes, symmetry, independence of the batch."""

import time

import numpy as np
import pytest
import torch
from mask_checks import GRIDS, KINDS, PAPER, check, grids_of, mirrored_difference, multiblock

from ijepa.masking import MultiBlock, Random, Rasterized, Reference
from ijepa.util.errors import ConfigError


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_leak_and_constant_sizes(kind, grid):
    sampler = KINDS[kind](grid)
    for step in range(20):
        masks = sampler.sample(0, step, np.arange(64))
        check(masks, grid)
        if kind == "keep":
            assert masks.valid.sum(1).min() >= sampler.context_patches
        else:
            assert masks.valid is None
            assert masks.context.shape == (64, sampler.context_patches)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_s_masks_depend_on_its_place_alone(kind):
    sampler = KINDS[kind]((9, 13))
    whole = sampler.sample(7, 3, np.arange(32))
    for position in (0, 5, 31):
        alone = sampler.sample(7, 3, np.array([position]))
        assert torch.equal(alone.targets[0], whole.targets[position])
        valid = slice(None) if whole.valid is None else whole.valid[position]
        assert torch.equal(alone.context[0], whole.context[position][valid])
    others = [sampler.sample(8, 3, np.arange(32)), sampler.sample(7, 4, np.arange(32))]
    assert all(not torch.equal(whole.targets, other.targets) for other in others)
    assert len(torch.unique(whole.targets.flatten(1), dim=0)) > (5 if kind == "block" else 16)


@pytest.mark.integration
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_visibility_is_symmetric(kind, grid):
    """Over 20,000 images each patch is context and target as often as its mirror image.

    Patches of one block are chosen together, but a patch and its mirror image in different images are independent, so
    the difference of two binomial counts bounds each pair. 5.3 deviations: p = 1e-7 for each of about 10^4 comparisons.
    """
    sampler = KINDS[kind](grid)
    images, step = 0, 0
    context = np.zeros(grid)
    targets = np.zeros(grid)
    while images < 20_000:
        masks = sampler.sample(1, step, np.arange(500))
        seen = grids_of(masks, grid[0] * grid[1])
        context += seen[0].numpy().sum(0).reshape(grid)
        targets += (seen[1] > 0).numpy().sum(0).reshape(grid)
        images, step = images + 500, step + 1
    assert targets.min() > 0, "some patch is never target"
    if kind == "block":  # a block of 60 % always covers the centre
        assert min(context.sum(0).min(), context.sum(1).min()) > 0, "some row or column is never context"
    else:
        assert context.min() > 0, "some patch is never context"
    for counts in (context, targets):
        for axis in (0, 1):
            assert mirrored_difference((counts, images), axis) < 5.3


@pytest.mark.integration
def test_2000_random_configurations_end():
    """No hang, no leak, or one clear refusal."""
    rng = np.random.default_rng(0)
    drawn, refusals = 0, []
    start = time.monotonic()
    for number in range(2000):
        grid = (int(rng.integers(1, 17)), int(rng.integers(1, 17)))
        low, aspect, context = rng.uniform(0.01, 1), rng.uniform(0.2, 2), rng.uniform(0.05, 1)
        asked = None if rng.random() < 0.5 else int(rng.integers(1, grid[0] * grid[1] + 2))
        try:
            kind = number % 4
            if kind == 0:
                sampler = Rasterized(grid, asked)
            elif kind == 1:
                sampler = Random(grid, float(rng.uniform(0.001, 0.999)), asked)
            else:
                sampler = MultiBlock(
                    grid,
                    int(rng.integers(1, 9)),
                    (low, float(rng.uniform(low, 1))),
                    (aspect, float(rng.uniform(aspect, 4))),
                    (context, float(rng.uniform(context, 1))),
                    asked,
                    "drop" if kind == 2 else "keep",
                )
        except ConfigError as error:
            refusals.append(str(error))
            continue
        drawn += 1
        for step in range(2):
            check(sampler.sample(number, step, np.arange(8)), grid)
    assert drawn > 500
    assert len(refusals) > 200
    assert all("\n" not in line and line.startswith("masking.") for line in refusals)
    assert time.monotonic() - start < 240, "something hangs"


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: multiblock((8, 8), target_scale=(0.9, 1.0)), "masking.target_scale"),
        (lambda: multiblock((14, 14), context_patches=150), "masking.context_patches"),
        (lambda: Random((8, 8), 0.6, 30), "masking.context_patches"),
        (lambda: Random((2, 2), 0.1, None), "masking.ratio"),
        (lambda: Rasterized((1, 8), None), "masking.name"),
        (lambda: Reference((8, 8), **PAPER, min_keep=10), "masking.min_keep"),
    ],
)
def test_impossible_configurations_are_refused(build, key):
    with pytest.raises(ConfigError, match=rf"^{key}="):
        build()
