"""From a scene to its picture: one ray per pixel, then many per pixel wherever the picture has an edge."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import FAR, Array, Bounds, View, hit, solids_of, view_of
from ijepa.data.scenes.scene import METAL, Scenes
from ijepa.data.scenes.shading import PALETTE, Lighting, background

SAMPLES = 8
CONTRAST = 0.05
"""Difference between neighbours, in units of the square root of linear light, from which pixels are sampled densely."""

_steps = np.arange(SAMPLES, dtype=np.float32)
OFFSETS = (_steps + 0.5) / SAMPLES, ((_steps * 3) % SAMPLES + 0.5) / SAMPLES
"""x and y of the samples in a pixel: every column and every row of a SAMPLES x SAMPLES grid has one."""

_levels = np.arange(2**14) / (2**14 - 1)
GAMMA = np.round(
    255 * np.where(_levels <= 0.0031308, 12.92 * _levels, 1.055 * np.maximum(_levels, 1e-9) ** (1 / 2.4) - 0.055)
).astype(np.uint8)
"""sRGB of linear light in steps of 1 / 16383."""


# glibc hands freed memory back to the system, page by page, until it has once seen a large block freed. Loaders of
# batches free such blocks anyway; where nothing does, a third of the time would go into getting the pages again.
np.empty(2**24, dtype=np.uint8)


class Picture(NamedTuple):
    """What is seen, per pixel."""

    image: NDArray[np.uint8]  # [H, W, 3] sRGB
    depth: NDArray[np.float32]  # [H, W]
    instances: NDArray[np.uint8]  # [H, W]


def picture(scenes: Scenes, row: int, size: tuple[int, int]) -> Picture:
    """The picture of the ``row``-th scene, of ``size`` (height, width)."""
    height, width = size
    view, solids = view_of(scenes, row, size), solids_of(scenes, row)
    count = len(solids)
    lighting = Lighting(
        solids,
        PALETTE[:, scenes.colour[row, :count]],
        scenes.material[row, :count] == METAL,
        scenes.light[row].astype(np.float32)[:, None],
    )
    x = np.tile(np.arange(width, dtype=np.float32) + np.float32(0.5), height)
    y = np.repeat(np.arange(height, dtype=np.float32) + np.float32(0.5), width)
    bounds = [view.bounds(solid) for solid in solids]
    colours, depth, ids = _look(view, lighting, bounds, x, y)
    edges = _edges(colours.reshape(3, height, width), ids.reshape(height, width))
    if len(edges):
        dense, _, _ = _look(
            view,
            lighting,
            bounds,
            ((x[edges] - 0.5)[:, None] + OFFSETS[0]).ravel(),
            ((y[edges] - 0.5)[:, None] + OFFSETS[1]).ravel(),
        )
        by_sample = dense.reshape(3, len(edges), SAMPLES)
        total = by_sample[..., 0]
        for sample in range(1, SAMPLES):
            total = total + by_sample[..., sample]
        colours[:, edges] = total / SAMPLES
    levels = (colours * (len(GAMMA) - 1) + np.float32(0.5)).astype(np.int32)
    image = GAMMA[levels].T.reshape(height, width, 3)
    return Picture(image, depth.reshape(size), ids.reshape(size))


def _look(
    view: View, lighting: Lighting, bounds: list[Bounds], x: Array, y: Array
) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Linear colours in 0..1 [3, N], depths [N] and objects [N] at points of the picture."""
    rays = view.rays(x, y)
    falling = np.maximum(-rays[2], np.float32(1e-4))
    depth = view.position[2] / falling
    ids = np.zeros(len(x), dtype=np.uint8)
    for k, (solid, (left, top, right, bottom)) in enumerate(zip(lighting.solids, bounds, strict=True)):
        index = np.flatnonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
        if len(index):
            at = hit(solid, view.position, rays[:, index])
            closer = at < depth[index]
            index = index[closer]
            depth[index] = at[closer]
            ids[index] = k + 1
    sky = np.flatnonzero(depth > FAR)
    depth[sky] = FAR
    colours = lighting.shade(view.position + depth * rays, ids, rays)
    colours[:, sky] = background()
    return np.clip(colours, 0, 1, out=colours), depth, ids


def _edges(colours: Array, ids: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Indices of the pixels that differ from one of their four neighbours."""
    tone = np.sqrt(colours)
    marked = np.zeros(ids.shape, dtype=bool)
    for before, after in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
                          ((slice(None, -1), slice(None)), (slice(1, None), slice(None)))):  # fmt: skip
        change = np.abs(tone[:, *before] - tone[:, *after])
        differs = (np.maximum(np.maximum(change[0], change[1]), change[2]) > CONTRAST) | (ids[before] != ids[after])
        marked[before] |= differs
        marked[after] |= differs
    return np.flatnonzero(marked)
