"""Samplers of every kind, and what their masks promise."""

import numpy as np
import torch

from ijepa.masking import MultiBlock, Random, Rasterized

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


def mirrored_difference(counts, axis):
    """The largest |z| between how often a patch and its mirror image are chosen; counts [H, W] of n images each."""
    frequencies, images = counts
    other = np.flip(frequencies, axis=axis)
    mean = (frequencies + other) / 2 / images
    deviation = np.sqrt(np.maximum(2 * mean * (1 - mean), 1e-12) * images)
    return np.max(np.abs(frequencies - other) / deviation)
