"""How fast are masks drawn? ``python -m benchmarks.masking``.

256 images on a 14x14 grid: every sampler against the per-image loop of the reference implementation. The samplers take
turns, so that the ratios are right even if the machine's speed drifts.
"""

import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from ijepa.masking import Masking, MultiBlock, Random, Rasterized, Reference

GRID, IMAGES, ROUNDS = (14, 14), 256, 15


def seconds(sampler: Masking, step: int) -> float:
    start = time.perf_counter()
    sampler.sample(0, step, np.arange(IMAGES))
    return time.perf_counter() - start


def main() -> None:
    scales = {"target_scale": (0.15, 0.2), "target_aspect": (0.75, 1.5), "context_scale": (0.85, 1.0)}
    block_scales = {"target_scale": (0.6, 0.6), "target_aspect": (0.75, 1.5), "context_scale": (1.0, 1.0)}
    samplers: dict[str, Masking] = {
        "reference": Reference(GRID, num_targets=4, **scales, min_keep=10),
        "multiblock": MultiBlock(GRID, num_targets=4, **scales, context_patches=None, surplus="drop"),
        "multiblock, surplus=keep": MultiBlock(GRID, num_targets=4, **scales, context_patches=None, surplus="keep"),
        "block": MultiBlock(GRID, num_targets=1, **block_scales, context_patches=None, surplus="drop"),
        "rasterized": Rasterized(GRID, None),
        "random": Random(GRID, 0.6, None),
    }
    for sampler in samplers.values():
        seconds(sampler, 0)
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for step in range(ROUNDS):
        for name, sampler in samplers.items():
            times[name].append(seconds(sampler, step))
    table = Table("masking", "ms", "times faster than the loop")
    for name, measured in times.items():
        ratios = [loop / duration for loop, duration in zip(times["reference"], measured, strict=True)]
        table.add_row(name, f"{1000 * statistics.median(measured):.2f}", f"{statistics.median(ratios):.1f}")
    print(f"{IMAGES} images, {GRID[0]}x{GRID[1]} patches, median of {ROUNDS}: python -m benchmarks.masking")
    Console().print(table)


if __name__ == "__main__":
    main()
