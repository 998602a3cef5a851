"""The LightningModule of the sketch decoder: diffusion of pictures, conditioned on frozen representations."""

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ijepa.data.datamodule import Batch
from ijepa.masking import Masking, Masks
from ijepa.models import ema
from ijepa.models.conditions import Conditions, boxes
from ijepa.models.decoder import SketchDecoder, pictures
from ijepa.models.diffusion import Diffusion, Sampling
from ijepa.models.pretrained import DECODER_KEY, Spec
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import Sketches
from ijepa.training.schedule import EMASchedule
from ijepa.util.randomness import Stream, integers, uniforms

LONGEST = 1.25
"""Sides of a block that are longer than those of a square of as many patches by more than this are undersampled."""
DRAWN = 4
"""Samples of each representation in the figure of a finished run."""


class DecoderTraining(TrainingModule):
    """Trains a `SketchDecoder`; what is exported and drawn with is a moving average of its weights.

    Every random number of a step is a function of (seed, step, position in the global batch): a stopped run continues
    to the same bits, and any number of devices draws the same.

    Args:
        decoder: trained by gradient descent.
        conditions: frozen.
        diffusion: what the decoder predicts.
        spec: of the encoders.
        seed: of noise, noise levels, the choice of a block and where the representation is withheld.
        withheld: probability with which the decoder does not see the representation.
        sampling: how pictures are drawn.
        schedule: learning rate, weight decay and EMA momentum of each step.
        betas: of AdamW.
        eps: of AdamW.
        description: how the networks are built, in plain containers, for the checkpoint.
    """

    mean: Tensor
    std: Tensor
    schedule: EMASchedule

    def __init__(
        self,
        decoder: SketchDecoder,
        conditions: Conditions,
        diffusion: Diffusion,
        spec: Spec,
        seed: int,
        withheld: float,
        sampling: Sampling,
        schedule: EMASchedule,
        betas: tuple[float, float],
        eps: float,
        description: dict[str, Any],
    ) -> None:
        super().__init__(schedule, betas, eps)
        self.decoder = decoder
        self.average = copy.deepcopy(decoder).requires_grad_(False)
        self.conditions = conditions
        self.diffusion = diffusion
        self.spec = spec
        self.seed = seed
        self.withheld = withheld
        self.sampling = sampling
        self.description = description
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)
        self._flops: dict[tuple[int, ...], float] = {}
        self._weightless = tuple(copy.deepcopy(part).to("meta") for part in (conditions, decoder))  # in no state dict

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The mean squared error of one micro-batch; ``batch.images``: [B, C, H, W], uint8 or float."""
        assert batch.masks is not None
        assert batch.positions is not None
        drawn = uniforms(self.seed, Stream.DIFFUSION, self.global_step, batch.positions, 3)
        images = self.normalised(batch.images)
        masks = one_block(batch.masks, self._moved(integers(drawn[:, 0], batch.masks.targets.shape[1])))
        positions = boxes(masks.targets[:, 0], self.spec.grid)
        truth = self.drawn(images, positions, masks.targets.shape[-1])
        noise = self.noise(self.global_step, batch.positions)
        levels, withheld = self._moved(drawn[:, 1].astype(np.float32)), self._moved(drawn[:, 2] < self.withheld)
        noised = self.diffusion.noised(truth, noise, levels)
        condition = self.conditions(images, masks)
        predicted = self.decoder(noised.images, noised.times, condition, positions, withheld)
        loss = F.mse_loss(predicted.float(), noised.target)
        return {"loss": loss, "parts": {"total": loss.detach()}}

    def normalised(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W], uint8 or float, as the encoders expect them."""
        values = images.float() / 255 if images.dtype == torch.uint8 else images
        return (values.to(self.mean.device, non_blocking=True) - self.mean) / self.std

    def drawn(self, images: Tensor, positions: Tensor, patches: int) -> Tensor:
        """What the decoder should draw of normalised images [B, C, H, W], at boxes [B, 4]: [B, C, S, S].

        Half of the normalised values: those of most images are within -1 and 1 then. ``patches``: of a block.
        """
        side = LONGEST * patches**0.5 * self.spec.patch_size  # in pixels
        with torch.autocast(self.device.type, enabled=False):  # positions in bfloat16 are off by parts of a pixel
            found = pictures(
                images, positions, self.decoder.size, self.decoder.shown, max(1, math.ceil(side / self.decoder.size))
            )
        return found / 2

    def noise(self, step: int, positions: NDArray[np.int64], stream: int = Stream.DIFFUSION) -> Tensor:
        """Standard normal noise [B, C, S, S], on the module's device."""
        shape = (self.decoder.channels, self.decoder.size, self.decoder.size)
        count = int(np.prod(shape))
        values = torch.from_numpy(uniforms(self.seed, stream, step, positions, count))  # another count: other numbers
        return self._moved(torch.special.ndtri(values).float().view(-1, *shape).numpy())

    def _moved(self, values: NDArray[Any]) -> Tensor:
        """``values`` on the module's device; a GPU is not waited for."""
        tensor = torch.from_numpy(values)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

    @torch.no_grad()
    def samples(self, condition: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        """Pictures [B, C, S, S] in 0..1 (float images: in their units), drawn with the averaged weights.

        Args:
            condition: [B, D], representations.
            positions: [B, 4], boxes.
            noise: [B, C, S, S], standard normal.
        """
        sampler, steps, guidance = self.sampling

        def predict(noised: Tensor, times: Tensor) -> Tensor:
            return self.average.guided(noised, times, condition, positions, guidance).float()

        return 2 * self.diffusion.sample(predict, noise, sampler, steps) * self.std + self.mean

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps the optimiser, then updates the averaged weights."""
        step = self.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        ema.update(self.average, self.decoder, self.schedule.momentum(step), self.skipped.last)

    def flops(self, batch: Batch) -> float:
        """Counted by torch on one image, with networks that compute nothing."""
        assert batch.masks is not None
        shapes = (batch.masks.context.shape[1], batch.masks.targets.shape[2])
        if shapes not in self._flops:
            self._flops[shapes] = self._image_flops(*shapes)
        return len(batch.images) * self._flops[shapes]

    def _image_flops(self, context: int, block: int) -> float:
        conditions, decoder = self._weightless
        with torch.device("meta"):
            masks = Masks(torch.zeros(1, context, dtype=torch.long), torch.zeros(1, 1, block, dtype=torch.long))
            image = torch.empty(1, self.decoder.channels, *self.spec.image_size)
            picture = torch.empty(1, self.decoder.channels, self.decoder.size, self.decoder.size)
            with FlopCounterMode(display=False) as counter:
                condition = conditions(image, masks)
                decoder(picture, torch.empty(1), condition, torch.empty(1, 4)).sum().backward()
        return float(counter.get_total_flops())

    def networks(self) -> list[nn.Module]:
        frozen = (self.conditions.context_encoder, self.conditions.predictor, self.conditions.target_encoder)
        return [self.decoder, self.average, *(network for network in frozen if isinstance(network, nn.Module))]

    @torch.no_grad()
    def sketches(self, images: Tensor, masking: Masking | None) -> Sketches:
        assert masking is not None
        masks = masking.sample(self.seed, 0, np.arange(len(images)))
        masks = Masks(masks.context, masks.targets[:, :1], masks.valid)
        here = Masks(*(None if part is None else part.to(self.device) for part in masks))  # type: ignore[arg-type]
        positions = boxes(here.targets[:, 0], self.spec.grid).repeat_interleave(DRAWN, 0)
        condition = self.conditions(self.normalised(images), here).repeat_interleave(DRAWN, 0)
        noise = self.noise(0, np.arange(len(positions)), Stream.DECODER_SAMPLES)
        drawn = self.samples(condition, positions, noise).cpu().unflatten(0, (len(images), DRAWN))
        return Sketches(images, masks, drawn, self.decoder.shown, self.spec.patch_size)

    def exports(self) -> dict[str, Any]:
        return {"decoder": self.average}

    def checkpoint_extras(self) -> dict[str, Any]:
        return {DECODER_KEY: self.description}

    def describe(self) -> list[str]:
        count = sum(parameter.numel() for parameter in self.decoder.parameters()) / 1e6
        side = self.decoder.size
        shown = "a target block" if self.decoder.shown == "block" else "the image"
        return [f"decoder {count:.1f} M parameters, draws {shown} at {side}x{side} pixels",
                f"from {TITLES[self.conditions.condition]}"]  # fmt: skip


TITLES = {
    "prediction": "the predictor's output for the block, average-pooled",
    "target": "the target encoder's output at the block, average-pooled",
    "image": "the target encoder's output, average-pooled over the image",
    "nothing": "no representation",
}


def one_block(masks: Masks, chosen: Tensor) -> Masks:
    """``masks`` with one target block per image, [B, 1, K]: those of numbers ``chosen`` [B]."""
    block = masks.targets[torch.arange(len(chosen), device=chosen.device), chosen]  # [B, K]
    return Masks(masks.context, block[:, None], masks.valid)
