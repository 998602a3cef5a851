import math
import time

import numpy as np
import pytest
import torch

from ijepa.masking import MultiBlock, Random, Rasterized, Reference, common
from ijepa.util.errors import ConfigError

PAPER = {
    "num_targets": 4,
    "target_scale": (0.15, 0.2),
    "target_aspect": (0.75, 1.5),
    "context_scale": (0.85, 1.0),
}


def multiblock(grid, context_patches=None, surplus="drop", **changes):
    return MultiBlock(grid, **{**PAPER, **changes}, context_patches=context_patches, surplus=surplus)


def block(grid):
    return multiblock(grid, num_targets=1, target_scale=(0.6, 0.6), context_scale=(1.0, 1.0))


KINDS = {
    "multiblock": multiblock,
    "keep": lambda grid: multiblock(grid, surplus="keep"),
    "block": block,
    "rasterized": lambda grid: Rasterized(grid, None),
    "random": lambda grid: Random(grid, 0.6, None),
}
GRIDS = [(14, 14), (9, 13), (8, 8)]


def grids_of(masks, patches):
    """How often each patch is context and target: two arrays [B, N] of counts."""
    size = len(masks.context)
    context = torch.zeros(size, patches, dtype=torch.int64)
    valid = torch.ones_like(masks.context) if masks.valid is None else masks.valid.long()
    context.scatter_add_(1, masks.context, valid)
    targets = torch.zeros(size, patches, dtype=torch.int64)
    targets.scatter_add_(1, masks.targets.flatten(1), torch.ones_like(masks.targets.flatten(1)))
    return context, targets


def check(masks, grid):
    """What every sampler but the reference's promises."""
    patches = grid[0] * grid[1]
    context, targets = grids_of(masks, patches)
    assert context.max() == 1, "a context patch twice"
    assert not ((context > 0) & (targets > 0)).any(), "a target patch in the context"
    assert (context.sum(1) > 0).all()
    for blocks in masks.targets.unbind(1):
        assert (blocks.diff(dim=1) > 0).all(), "a target block's patches are not distinct and ascending"
        assert blocks.min() >= 0
        assert blocks.max() < patches


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


def mirrored_difference(counts, axis):
    """The largest |z| between how often a patch and its mirror image are chosen; counts [H, W] of n images each."""
    frequencies, images = counts
    other = np.flip(frequencies, axis=axis)
    mean = (frequencies + other) / 2 / images
    deviation = np.sqrt(np.maximum(2 * mean * (1 - mean), 1e-12) * images)
    return np.max(np.abs(frequencies - other) / deviation)


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


def test_the_reference_is_not_symmetric():
    """The test above can fail: the faults that it looks for are there in the reference's masks."""
    sampler = Reference((14, 14), **PAPER, min_keep=10)
    context, targets = np.zeros((14, 14)), np.zeros((14, 14))
    for step in range(8):
        seen = grids_of(sampler.sample(1, step, np.arange(64)), 196)
        context += seen[0].numpy().sum(0).reshape(14, 14)
        targets += (seen[1] > 0).numpy().sum(0).reshape(14, 14)
    assert targets[-1].max() == targets[:, -1].max() == 0
    assert context[-1].max() == context[:, -1].max() == 0
    assert mirrored_difference((context[:13, :13], 512), 0) > 5.3


def test_scale_and_aspect_are_independent():
    sampler = multiblock((32, 32))
    sizes = np.array([sampler.sizes(0, step)[0] for step in range(4000)], dtype=float)
    area, aspect = sizes.prod(1), sizes[:, 0] / sizes[:, 1]
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.06  # 1 / sqrt(4000) = 0.016; rounding to patches adds a little
    assert 0.75 * 0.85 < aspect.min() < 0.85 < 1.35 < aspect.max() < 1.5 * 1.15
    assert len(np.unique(sizes, axis=0)) >= 30
    assert 0.135 < area.min() / 1024 < 0.16 < 0.19 < area.max() / 1024 < 0.215  # rounded to patches


def test_surplus_patches_are_dropped_at_random():
    """Where every patch is as likely to be allowed as any other, each is as likely to stay."""
    sampler = Random((6, 6), 1 / 36, context_patches=10)
    counts = np.zeros(36)
    for step in range(40):
        counts += grids_of(sampler.sample(2, step, np.arange(500)), 36)[0].numpy().sum(0)
    expected = 40 * 500 * 10 / 36
    assert ((counts - expected) ** 2 / expected).sum() < 66.6  # chi-squared, 35 degrees of freedom, p = 0.001


def test_patches_with_equal_random_numbers_are_still_chosen_once(monkeypatch):
    few = np.random.default_rng(0).integers(0, 3, (50, 8)).astype(np.uint64)
    monkeypatch.setattr(common, "words", lambda *_: few * np.uint64(0x0000000100000001))
    allowed = np.random.default_rng(1).random((50, 16)) < 0.7
    chosen = common.choose(allowed, 5, 0, 0, 0, np.arange(50))
    assert (np.diff(chosen, axis=1) > 0).all()
    assert np.take_along_axis(allowed, chosen, 1).all()


def test_default_context_is_near_the_reference_s_average():
    for grid in ((14, 14), (16, 16)):
        ours = multiblock(grid).context_patches
        theirs = Reference(grid, **PAPER, min_keep=10)
        average = np.mean([theirs.sample(0, step, np.arange(128)).context.shape[1] for step in range(12)])
        assert abs(ours / average - 1) < 0.2


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


def test_quadrants_are_the_whole_grid():
    masks = Rasterized((8, 8), None).sample(0, 0, np.arange(16))
    context, targets = grids_of(masks, 64)
    assert masks.targets.shape == (16, 3, 16)
    assert ((context + targets) == 1).all()


def test_published_block_sizes():
    """Square grids: the target's area and aspect and the context's side as the paper has them."""
    sampler = multiblock((14, 14))
    for step in range(200):
        (height, width), context = sampler.sizes(3, step)
        assert 0.15 * 196 - 6 < height * width < 0.2 * 196 + 6
        assert 0.75 * 0.8 < height / width < 1.5 * 1.25
        assert context[0] == context[1]
        assert math.sqrt(0.85) * 14 - 0.5 <= context[0] <= 14
