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
from ijepa.models.conditions import Representation
from ijepa.models.pretrained import DECODER_KEY
from ijepa.models.sketcher import Sketcher
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import DecoderMonitor, Sketches
from ijepa.training.schedule import EMASchedule
from ijepa.training.specs import NOISE_LEVELS
from ijepa.util.randomness import Stream, uniforms

DRAWN = 4
"""Samples of each representation in the figure of a finished run."""
IMAGES = 16
"""In a forward pass of a health check, each at all noise levels."""


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
    draws = True

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
        noised = sketcher.diffusion.noised(sketcher.truth(images, masks), noise, levels)
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
            self._flops[shapes] = self.image_flops(*shapes)
        return len(batch.images) * self._flops[shapes]

    def image_flops(self, context: int, blocks: int, patches: int) -> float:
        """Of the forward and backward pass on one image, of which so many blocks are drawn."""
        conditions, decoder = self._weightless
        with torch.device("meta"):
            masks = Masks(torch.zeros(1, context, dtype=torch.long), torch.zeros(1, blocks, patches, dtype=torch.long))
            image = torch.empty(1, self.decoder.channels, *self.sketcher.spec.image_size)
            noised = torch.empty(blocks, self.decoder.channels, self.decoder.size, self.decoder.size)
            with FlopCounterMode(display=False) as counter:
                decoder(noised, torch.empty(blocks), conditions(image, masks)).sum().backward()
        return float(counter.get_total_flops())

    def monitor(self) -> "LossesByNoise":
        return LossesByNoise(self)

    def networks(self) -> list[nn.Module]:
        conditions = self.sketcher.conditions
        frozen = (conditions.context_encoder, conditions.predictor, conditions.target_encoder)
        return [self.decoder, self.sketcher.decoder, *(network for network in frozen if isinstance(network, nn.Module))]

    @torch.no_grad()
    def sketches(self, images: Tensor, masking: Masking | None) -> Sketches:
        assert masking is not None
        masks = masking.sample(self.seed, 0, np.arange(len(images)))
        masks = masks.with_targets(masks.targets[:, :1])
        representation = self.sketcher.conditions(self.sketcher.normalised(images), masks.to(self.device))
        noise = self.sketcher.noise(self.seed, Stream.DECODER_SAMPLES, 0, np.arange(len(images)), DRAWN)
        samples = self.sketcher.samples(representation.repeated(DRAWN), noise).cpu()
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


class LossesByNoise(DecoderMonitor):
    """Losses of the averaged weights; see `DecoderMonitor`."""

    def __init__(self, module: DecoderTraining) -> None:
        self.module = module
        self.conditioned = module.sketcher.conditions.condition != "nothing"
        self.withheld = module.withheld > 0

    def losses(self, images: Tensor, masks: Masks) -> dict[str, Tensor]:
        sketcher, count = self.module.sketcher, len(NOISE_LEVELS)
        here = masks.with_targets(masks.targets[:, :1]).to(self.module.device)
        parts = [slice(start, start + IMAGES) for start in range(0, len(images), IMAGES)]
        own = [sketcher.conditions(sketcher.normalised(images[rows]), here.rows(rows)) for rows in parts]
        representations = Representation(*(torch.cat(tensors) for tensors in zip(*own, strict=True)))
        others = Representation(*(tensor.roll(1, 0) for tensor in representations))
        sums = {name: torch.zeros(count, device=self.module.device) for name in ("own", "another", "none")}
        for rows in parts:
            truth = sketcher.truth(sketcher.normalised(images[rows]), here.rows(rows)).repeat_interleave(count, 0)
            positions = np.arange(len(images))[rows]
            noise = sketcher.noise(self.module.seed, Stream.HEALTH_NOISE, 0, positions, count)
            noised = sketcher.diffusion.noised(truth, noise, truth.new_tensor(NOISE_LEVELS).repeat(len(positions)))
            for name, kind in (("own", representations), ("another", others), ("none", representations)):
                seen = Representation(*(tensor[rows] for tensor in kind)).repeated(count)
                withheld = torch.full((len(truth),), name == "none", device=truth.device)
                predicted = sketcher.decoder(noised.images, noised.times, seen, withheld)
                errors = (predicted.float() - noised.target).square().flatten(1).mean(dim=1)
                sums[name] += errors.view(-1, count).sum(dim=0)
        return {name: total / len(images) for name, total in sums.items()}

    def flops(self, masks: Masks) -> float:
        one_block = self.module.image_flops(masks.context.shape[1], 1, masks.targets.shape[2])
        return one_block * len(NOISE_LEVELS)  # with gradients, that of three representations without


TITLES = {
    "prediction": "the predictor's output for the block",
    "target": "the target encoder's output at the block",
    "image": "the target encoder's output for the whole image",
    "nothing": "no representation",
}
