"""How often is each patch context or target? ``python -m benchmarks.visibility`` draws docs/visibility.png.

Compares the masks of the reference implementation, at 128 images per batch, with masking=multiblock on a 14x14 grid.
"""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ijepa.masking import Masking, MultiBlock, Reference

GRID, BATCH, IMAGES = (14, 14), 128, 20_480
OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "visibility.png"


def frequencies(sampler: Masking) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The fraction of images in which each patch is context, and in which it is a target: [H, W] each."""
    context, targets = np.zeros(GRID[0] * GRID[1]), np.zeros(GRID[0] * GRID[1])
    for step in range(IMAGES // BATCH):
        masks = sampler.sample(0, step, np.arange(BATCH))
        context += np.bincount(masks.context.numpy().ravel(), minlength=len(context))
        for blocks in masks.targets.flatten(1).numpy():
            targets[np.unique(blocks)] += 1
    return context.reshape(GRID) / IMAGES, targets.reshape(GRID) / IMAGES


def main() -> None:
    scales = {"target_scale": (0.15, 0.2), "target_aspect": (0.75, 1.5), "context_scale": (0.85, 1.0)}
    samplers: dict[str, Masking] = {
        "reference implementation": Reference(GRID, num_targets=4, **scales, min_keep=10),
        "masking=multiblock": MultiBlock(GRID, num_targets=4, **scales, context_patches=None, surplus="drop"),
    }
    table = Table("", "", "top row", "bottom row", "min", "max")
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.6), layout="constrained")
    for row, (name, sampler) in enumerate(samplers.items()):
        for column, (part, frequency) in enumerate(zip(("context", "target"), frequencies(sampler), strict=True)):
            summary = (frequency[0].mean(), frequency[-1].mean(), frequency.min(), frequency.max())
            table.add_row(name, part, *(f"{100 * value:.1f}" for value in summary))
            picture = axes[row, column].imshow(100 * frequency, vmin=0, vmax=80, cmap="magma")
            axes[row, column].set_title(f"{name}: {part}", fontsize=9)
            axes[row, column].set(xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes, label="% of images", shrink=0.6)
    figure.savefig(OUTPUT, dpi=110)
    print(f"% of {IMAGES} images: python -m benchmarks.visibility")
    Console().print(table)


if __name__ == "__main__":
    main()
