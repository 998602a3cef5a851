"""Ray tracing of a scene: one ray per pixel, then `SAMPLES` rays for every pixel at an edge (anti-aliasing)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ijepa.data.scenes.geometry import FAR, Array, Bounds, Camera, camera_of, hit, solids_of
from ijepa.data.scenes.scene import METAL, Scenes
from ijepa.data.scenes.shading import PALETTE, Lighting, background

SAMPLES = 8
CONTRAST = 0.05
"""Pixels are anti-aliased if the square root of their linear light differs from a neighbour's by more than this."""

_steps = np.arange(SAMPLES, dtype=np.float32)
SAMPLE_OFFSETS = (_steps + 0.5) / SAMPLES, ((_steps * 3) % SAMPLES + 0.5) / SAMPLES
"""x and y of a pixel's samples: one in each column and each row of a SAMPLES x SAMPLES grid."""

_levels = np.arange(2**14) / (2**14 - 1)
SRGB = np.round(
    255 * np.where(_levels <= 0.0031308, 12.92 * _levels, 1.055 * np.maximum(_levels, 1e-9) ** (1 / 2.4) - 0.055)
).astype(np.uint8)
"""sRGB values for linear light in steps of 1 / 16383."""


# glibc returns freed memory to the system until a large block has been freed once. Data loaders free such blocks
# anyway; without one, a third of the time is spent on getting the pages back.
np.empty(2**24, dtype=np.uint8)


class RenderBuffers(NamedTuple):
    """The image and its ground truth, per pixel; see `ijepa.data.scenes.RenderedScene`."""

    image: NDArray[np.uint8]  # [H, W, 3] sRGB
    depth: NDArray[np.float32]  # [H, W]
    instances: NDArray[np.uint8]  # [H, W]


def render_buffers(scenes: Scenes, index: int, size: tuple[int, int]) -> RenderBuffers:
    """Renders scene ``index`` of the batch at ``size`` (height, width)."""
    height, width = size
    camera, solids = camera_of(scenes, index, size), solids_of(scenes, index)
    count = len(solids)
    lighting = Lighting(
        solids,
        PALETTE[:, scenes.colour[index, :count]],
        scenes.material[index, :count] == METAL,
        scenes.light[index].astype(np.float32)[:, None],
    )
    x = np.tile(np.arange(width, dtype=np.float32) + np.float32(0.5), height)
    y = np.repeat(np.arange(height, dtype=np.float32) + np.float32(0.5), width)
    bounds = [camera.bounds(solid) for solid in solids]
    colours, depth, ids = _trace(camera, lighting, bounds, x, y)
    edges = _edges(colours.reshape(3, height, width), ids.reshape(height, width))
    if len(edges):
        samples, _, _ = _trace(
            camera,
            lighting,
            bounds,
            ((x[edges] - 0.5)[:, None] + SAMPLE_OFFSETS[0]).ravel(),
            ((y[edges] - 0.5)[:, None] + SAMPLE_OFFSETS[1]).ravel(),
        )
        by_sample = samples.reshape(3, len(edges), SAMPLES)
        total = by_sample[..., 0]
        for sample in range(1, SAMPLES):
            total = total + by_sample[..., sample]
        colours[:, edges] = total / SAMPLES
    levels = (colours * (len(SRGB) - 1) + np.float32(0.5)).astype(np.int32)
    image = SRGB[levels].T.reshape(height, width, 3)
    return RenderBuffers(image, depth.reshape(size), ids.reshape(size))


def _trace(
    camera: Camera, lighting: Lighting, bounds: list[Bounds], x: Array, y: Array
) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Linear colours in 0..1 [3, N], depths [N] and object numbers [N] (0: ground or sky) at image points (pixels)."""
    rays = camera.rays(x, y)
    descent = np.maximum(-rays[2], np.float32(1e-4))
    depth = camera.position[2] / descent
    ids = np.zeros(len(x), dtype=np.uint8)
    for k, (solid, (left, top, right, bottom)) in enumerate(zip(lighting.solids, bounds, strict=True)):
        index = np.flatnonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
        if len(index):
            hit_depth = hit(solid, camera.position, rays[:, index])
            closer = hit_depth < depth[index]
            index = index[closer]
            depth[index] = hit_depth[closer]
            ids[index] = k + 1
    sky = np.flatnonzero(depth > FAR)
    depth[sky] = FAR
    colours = lighting.shade(camera.position + depth * rays, ids, rays)
    colours[:, sky] = background()
    return np.clip(colours, 0, 1, out=colours), depth, ids


def _edges(colours: Array, ids: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Indices of the pixels whose colour or object differs from that of one of the four neighbours."""
    tone = np.sqrt(colours)
    is_edge = np.zeros(ids.shape, dtype=bool)
    for before, after in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
                          ((slice(None, -1), slice(None)), (slice(1, None), slice(None)))):  # fmt: skip
        change = np.abs(tone[:, *before] - tone[:, *after])
        differs = (np.maximum(np.maximum(change[0], change[1]), change[2]) > CONTRAST) | (ids[before] != ids[after])
        is_edge[before] |= differs
        is_edge[after] |= differs
    return np.flatnonzero(is_edge)
