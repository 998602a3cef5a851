"""What do context and targets look like? ``python -m benchmarks.pictures`` draws docs/masks.png.

Two photographs from scikit-learn (by danielbuechele and vultilion on Flickr, CC BY 2.0): 224x224 pixels, patches of
16x16.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from ijepa import pictures
from ijepa.data.images import EvalTransform
from ijepa.masking import MultiBlock

SIDE, PATCH = 224, 16
OUTPUT = Path(__file__).resolve().parent.parent / "docs" / "masks.png"


def main() -> None:
    sampler = MultiBlock((SIDE // PATCH, SIDE // PATCH), 4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), None, "drop")
    transform = EvalTransform((SIDE, SIDE))
    images = torch.stack([transform(Image.fromarray(picture)) for picture in load_sample_images().images])
    masks = sampler.sample(0, 4, np.arange(len(images)))
    pictures.write(pictures.masks(images, masks, PATCH), OUTPUT, dpi=150)
    print(f"{OUTPUT}: {sampler.context_patches} context patches, target blocks of {sampler.sizes(0, 4)[0]}")


if __name__ == "__main__":
    main()
