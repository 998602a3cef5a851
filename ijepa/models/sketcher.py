"""Draws what representations hold: a sketch decoder with the frozen networks whose representations it draws."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ijepa.masking import Masks
from ijepa.models.conditions import Conditions, Representation, boxes
from ijepa.models.decoder import SketchDecoder, pictures
from ijepa.models.diffusion import Diffusion, Sampling
from ijepa.models.pretrained import Spec
from ijepa.util.randomness import words

LONGEST = 1.25
"""Sides of a block that are longer than those of a square of as many patches by more than this are undersampled."""


class Sketcher(nn.Module):
    """From images to pictures of what their representations hold.

    Args:
        decoder: draws.
        conditions: frozen.
        diffusion: what the decoder predicts.
        sampling: how pictures are drawn.
        spec: of the encoders.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, decoder: SketchDecoder, conditions: Conditions, diffusion: Diffusion, sampling: Sampling, spec: Spec
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.conditions = conditions
        self.diffusion = diffusion
        self.sampling = sampling
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def normalised(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W], uint8 or float, as the encoders expect them."""
        values = images.float() / 255 if images.dtype == torch.uint8 else images
        return (values.to(self.mean.device, non_blocking=True) - self.mean) / self.std

    def truth(self, images: Tensor, masks: Masks) -> Tensor:
        """What the decoder should draw of normalised images [B, C, H, W], for all M blocks of each: [B * M, C, S, S].

        Half of the normalised values: those of most images are within -1 and 1 then.
        """
        size, shown, (_, count, patches) = self.decoder.size, self.decoder.shown, masks.targets.shape
        side = LONGEST * patches**0.5 * self.spec.patch_size  # of a block, in pixels
        blocks = boxes(masks.targets.flatten(0, 1), self.spec.grid)
        with torch.autocast(self.mean.device.type, enabled=False):  # positions in bfloat16 are off by parts of a pixel
            if shown == "image":
                found = pictures(images, blocks, size, shown).repeat_interleave(count, 0)
            else:
                repeated = images.repeat_interleave(count, 0)
                found = pictures(repeated, blocks, size, shown, max(1, math.ceil(side / size)))
        return found / 2

    def noise(self, seed: int, stream: int, step: int, positions: NDArray[np.int64], count: int) -> Tensor:
        """Standard normal noise [B * count, C, S, S], a function of seed, stream, step and each of the B positions.

        Drawn on the networks' device; a CPU and a GPU draw different numbers.
        """
        shape, device = (count, self.decoder.channels, self.decoder.size, self.decoder.size), self.mean.device
        generator = torch.Generator(device)
        seeds = words(seed, stream, step, positions, 1)[:, 0].tolist()
        return torch.cat([torch.randn(shape, generator=generator.manual_seed(each), device=device) for each in seeds])

    @torch.no_grad()
    def samples(self, representation: Representation, noise: Tensor, guidance: float | None = None) -> Tensor:
        """Pictures [n, C, S, S] in 0..1 (float images: in their units).

        Args:
            representation: of n blocks.
            noise: [n, C, S, S], standard normal.
            guidance: None: that of `sampling`; 0: without the representation.
        """
        used = self.sampling.guidance if guidance is None else guidance

        def predict(noised: Tensor, times: Tensor) -> Tensor:
            predicted: Tensor = self.decoder.guided(noised, times, representation, used)
            return predicted.float()

        return self.values(self.diffusion.sample(predict, noise, self.sampling.sampler, self.sampling.steps))

    def plain(self) -> dict[str, Any]:
        """What it can be rebuilt from, besides its weights, in plain containers."""
        return {
            "decoder": self.decoder.arguments, "condition": self.conditions.condition,
            "pooled": self.conditions.pooled, "predicts": self.diffusion.prediction, "sampling": list(self.sampling),
            "encoder": self.spec.plain(),
        }  # fmt: skip

    def values(self, drawn: Tensor) -> Tensor:
        """Pictures [n, C, S, S] in 0..1, from those of `truth`."""
        return 2 * drawn * self.std + self.mean
