"""What do context and targets look like? ``python -m benchmarks.pictures`` draws docs/masks.png.

Two photographs that come with scikit-learn (by danielbuechele and vultilion on Flickr, CC BY 2.0), at 224 pixels in
patches of 16.
"""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from ijepa.data.images import EvalTransform
from ijepa.masking import MultiBlock

SIDE, PATCH = 224, 16
GRID = (SIDE // PATCH, SIDE // PATCH)
OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "masks.png"


def shown(image: Tensor, patches: Tensor) -> np.ndarray:
    """The image [C, H, W] where ``patches`` are, light grey elsewhere: [H, W, C]."""
    seen = np.zeros(GRID[0] * GRID[1], dtype=bool)
    seen[patches.numpy()] = True
    mask = seen.reshape(GRID).repeat(PATCH, 0).repeat(PATCH, 1)[..., None]
    return np.where(mask, image.permute(1, 2, 0).numpy(), 0.93)


def main() -> None:
    sampler = MultiBlock(GRID, 4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), None, "drop")
    transform = EvalTransform((SIDE, SIDE))
    images = [transform(Image.fromarray(picture)) for picture in load_sample_images().images]
    masks = sampler.sample(0, 4, np.arange(len(images)))
    titles = ["image", "context", *(f"target {number}" for number in range(1, 5))]
    figure, axes = plt.subplots(len(images), 6, figsize=(10.2, 3.6), layout="constrained")
    for row, image in enumerate(images):
        everything = np.arange(GRID[0] * GRID[1])
        parts = [masks.context[row].new_tensor(everything), masks.context[row], *masks.targets[row]]
        for column, part in enumerate(parts):
            axes[row, column].imshow(shown(image, part), interpolation="nearest")
            axes[row, column].set_axis_off()
            if row == 0:
                axes[row, column].set_title(titles[column], fontsize=10)
    figure.savefig(OUTPUT, dpi=100)
    print(f"{OUTPUT}: {sampler.context_patches} context patches, target blocks of {sampler.sizes(0, 4)[0]}")


if __name__ == "__main__":
    main()
