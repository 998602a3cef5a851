"""The LightningModule of the sketch decoder: diffusion of pictures, conditioned on frozen representations."""

import copy
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
from ijepa.models.pretrained import DECODER_KEY
from ijepa.models.sketcher import Sketcher
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import Sketches
from ijepa.training.schedule import EMASchedule
from ijepa.util.randomness import Stream, uniforms

DRAWN = 4
"""Samples of each representation in the figure of a finished run."""


class DecoderTraining(TrainingModule):
    """Trains a `SketchDecoder`; what is exported and drawn with is a moving average of its weights.

    Every random number of a step is a function of (seed, step, position in the global batch): a stopped run continues
    to the same bits, and any number of devices draws the same.

    Args:
        sketcher: its decoder becomes the moving average of the one that is trained.
        seed: of noise, noise levels and where the representation is withheld.
        withheld: probability with which the decoder does not see the representation.
        schedule: learning rate, weight decay and EMA momentum of each step.
        betas: of AdamW.
        eps: of AdamW.
    """

    schedule: EMASchedule

    def __init__(
        self,
        sketcher: Sketcher,
        seed: int,
        withheld: float,
        schedule: EMASchedule,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(schedule, betas, eps)
        self.decoder = sketcher.decoder
        sketcher.decoder = copy.deepcopy(self.decoder).requires_grad_(False)
        self.sketcher = sketcher
        self.seed = seed
        self.withheld = withheld
        self._flops: dict[tuple[int, ...], float] = {}
        weightless = (copy.deepcopy(part).to("meta") for part in (sketcher.conditions, self.decoder))
        self._weightless = tuple(weightless)  # in no state dict

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The mean squared error of one micro-batch; ``batch.images``: [B, C, H, W], uint8 or float."""
        assert batch.masks is not None
        assert batch.positions is not None
        masks, images, sketcher = batch.masks, self.sketcher.normalised(batch.images), self.sketcher
        blocks = masks.targets.shape[1]  # of an image; all of them are drawn
        drawn = uniforms(self.seed, Stream.DIFFUSION, self.global_step, batch.positions, 2 * blocks)
        levels = self._moved(drawn[:, :blocks].reshape(-1).astype(np.float32))
        withheld = self._moved(drawn[:, blocks:].reshape(-1) < self.withheld)
        noise = sketcher.noise(self.seed, Stream.DIFFUSION, self.global_step, batch.positions, blocks)
        noised = sketcher.diffusion.noised(sketcher.truth(images, masks), self._moved(noise.numpy()), levels)
        representation = sketcher.conditions(images, masks)
        predicted = self.decoder(noised.images, noised.times, representation, withheld)
        loss = F.mse_loss(predicted.float(), noised.target)
        return {"loss": loss, "parts": {"total": loss.detach()}}

    def _moved(self, values: NDArray[Any]) -> Tensor:
        """``values`` on the module's device; a GPU is not waited for."""
        tensor = torch.from_numpy(values)
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps the optimiser, then updates the averaged weights."""
        step = self.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        ema.update(self.sketcher.decoder, self.decoder, self.schedule.momentum(step), self.skipped.last)

    def flops(self, batch: Batch) -> float:
        """Counted by torch on one image, with networks that compute nothing."""
        assert batch.masks is not None
        shapes = (batch.masks.context.shape[1], *batch.masks.targets.shape[1:])
        if shapes not in self._flops:
            self._flops[shapes] = self._image_flops(*shapes)
        return len(batch.images) * self._flops[shapes]

    def _image_flops(self, context: int, blocks: int, patches: int) -> float:
        conditions, decoder = self._weightless
        with torch.device("meta"):
            masks = Masks(torch.zeros(1, context, dtype=torch.long), torch.zeros(1, blocks, patches, dtype=torch.long))
            image = torch.empty(1, self.decoder.channels, *self.sketcher.spec.image_size)
            noised = torch.empty(blocks, self.decoder.channels, self.decoder.size, self.decoder.size)
            with FlopCounterMode(display=False) as counter:
                decoder(noised, torch.empty(blocks), conditions(image, masks)).sum().backward()
        return float(counter.get_total_flops())

    def networks(self) -> list[nn.Module]:
        conditions = self.sketcher.conditions
        frozen = (conditions.context_encoder, conditions.predictor, conditions.target_encoder)
        return [self.decoder, self.sketcher.decoder, *(network for network in frozen if isinstance(network, nn.Module))]

    @torch.no_grad()
    def sketches(self, images: Tensor, masking: Masking | None) -> Sketches:
        assert masking is not None
        masks = masking.sample(self.seed, 0, np.arange(len(images)))
        masks = Masks(masks.context, masks.targets[:, :1], masks.valid)
        here = Masks(*(None if part is None else part.to(self.device) for part in masks))  # type: ignore[arg-type]
        representation = self.sketcher.conditions(self.sketcher.normalised(images), here)
        noise = self.sketcher.noise(self.seed, Stream.DECODER_SAMPLES, 0, np.arange(len(images)), DRAWN)
        samples = self.sketcher.samples(representation.repeated(DRAWN), noise.to(self.device)).cpu()
        drawn = samples.unflatten(0, (len(images), DRAWN))
        return Sketches(images, masks, drawn, self.decoder.shown, self.sketcher.spec.patch_size)

    def exports(self) -> dict[str, Any]:
        return {"decoder": self.sketcher.decoder}

    def checkpoint_extras(self) -> dict[str, Any]:
        return {DECODER_KEY: {**self.sketcher.plain(), "withheld": self.withheld}}

    def describe(self) -> list[str]:
        count = sum(parameter.numel() for parameter in self.decoder.parameters()) / 1e6
        side = self.decoder.size
        conditions = self.sketcher.conditions
        pooled = conditions.pooled and conditions.condition != "nothing"
        shown = "a target block" if self.decoder.shown == "block" else "the image"
        return [f"decoder {count:.1f} M parameters, draws {shown} at {side}x{side} pixels",
                f"from {TITLES[conditions.condition]}{', average-pooled' if pooled else ''}"]  # fmt: skip


TITLES = {
    "prediction": "the predictor's output for the block",
    "target": "the target encoder's output at the block",
    "image": "the target encoder's output for the whole image",
    "nothing": "no representation",
}
