"""The LightningModule of I-JEPA pretraining (paper, section 3)."""

from typing import Any

import torch
from torch import Tensor, nn

from ijepa.data.datamodule import Batch
from ijepa.distributed import sharding
from ijepa.masking import Masks
from ijepa.models.jepa import JEPA
from ijepa.models.pretrained import SPEC_KEY, Spec
from ijepa.run_folder.folder import TEACHER
from ijepa.training.base import TrainingModule
from ijepa.training.flops import PretrainingFlops
from ijepa.training.objective import Objective
from ijepa.training.protocol import Monitor, MonitorFlops, TrainedEncoder
from ijepa.training.schedule import EMASchedule

TEACHER_SPEC_KEY = "ijepa_teacher"
"""What a checkpoint holds about the frozen encoder, if there is one: its spec."""


class Pretraining(TrainingModule):
    """Trains context encoder and predictor by gradient descent; the target encoder is their EMA (momentum) copy.

    Args:
        jepa: the three networks.
        spec: of the encoders; its mean and std are for values in 0..1 (float images: in their units).
        image_flops: FLOPs per image.
        objective: the loss.
        schedule: learning rate, weight decay and EMA momentum of each step.
        betas: of AdamW.
        eps: of AdamW.
        muon: see `TrainingModule`.
    """

    mean: Tensor
    std: Tensor
    schedule: EMASchedule

    def __init__(
        self,
        jepa: JEPA,
        spec: Spec,
        image_flops: PretrainingFlops,
        objective: Objective,
        schedule: EMASchedule,
        betas: tuple[float, float],
        eps: float,
        muon: bool = False,
    ) -> None:
        super().__init__(schedule, betas, eps, muon)
        self.jepa = jepa
        self.spec = spec
        self.image_flops = image_flops
        self.objective = objective
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1), persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The loss of one micro-batch and its terms; ``batch.images``: [B, C, H, W], uint8 or float."""
        assert batch.masks is not None
        images = batch.images.float() / 255 if batch.images.dtype == torch.uint8 else batch.images
        predictions, targets, context = self.jepa(self.normalised(images), batch.masks)
        loss = self.objective(predictions, targets, context, batch.masks.context, batch.masks.valid)
        parts = {"total": loss.total.detach(), **{name: part.detach() for name, part in loss.parts.items()}}
        return {"loss": loss.total, "parts": parts}

    def normalised(self, images: Tensor) -> Tensor:
        """Normalises images [B, C, H, W] in 0..1 (float images: in their units), on the networks' device."""
        return (images.to(self.mean.device, non_blocking=True) - self.mean) / self.std

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps the optimiser, then updates the target encoder: once per step, not once per micro-batch."""
        step = self.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.jepa.update_target_encoder(self.schedule.momentum(step), self.skipped.last)
        if self.jepa.statistics is not None:
            self.jepa.statistics.update(sharding.sum_over_ranks, self.skipped.last)

    def flops(self, batch: Batch) -> float:
        assert batch.masks is not None
        return len(batch.images) * self.image_flops.step_flops(*_sizes(batch.masks))

    def networks(self) -> list[nn.Module]:
        networks: list[nn.Module] = [self.jepa.context_encoder, self.jepa.predictor, self.jepa.target_encoder]
        networks += [] if self.jepa.teacher is None else [self.jepa.teacher.encoder]
        return [*networks, self.objective] if any(True for _ in self.objective.parameters()) else networks

    def monitor(self) -> Monitor:
        return PretrainingMonitor(self)

    def evaluated(self) -> TrainedEncoder:
        return TrainedEncoder("target", self.jepa.target_encoder, self.spec)

    def inputs(self) -> dict[str, TrainedEncoder]:
        teacher = self.jepa.teacher
        return {} if teacher is None else {TEACHER: TrainedEncoder("target", teacher.encoder, teacher.spec)}

    def checkpoint_extras(self) -> dict[str, Any]:
        """The encoders' specs, so that they can be rebuilt from the checkpoint alone."""
        teacher = self.jepa.teacher
        return {SPEC_KEY: self.spec.plain(), **({} if teacher is None else {TEACHER_SPEC_KEY: teacher.spec.plain()})}

    def describe(self) -> list[str]:
        trained = (self.jepa.context_encoder, self.jepa.predictor)
        encoder, predictor = (sum(p.numel() for p in network.parameters()) / 1e6 for network in trained)
        (rows, columns), side = self.spec.grid, self.spec.patch_size
        patches = f"{rows}x{columns} patches of {side}x{side} pixels"
        lines = [f"encoder {encoder:.1f} M, predictor {predictor:.1f} M parameters; {patches}"]
        teacher = self.jepa.teacher
        if teacher is not None:
            count = sum(p.numel() for p in teacher.parameters()) / 1e6
            lines.append(f"frozen teacher {count:.1f} M parameters, width {teacher.spec.width}")
        return lines


class PretrainingMonitor(Monitor):
    """The target encoder's features, and the predictor's predictions from the context."""

    def __init__(self, module: Pretraining) -> None:
        self.module = module
        self.jepa = module.jepa
        self.grid = module.spec.grid

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.jepa.target_encoder(self.module.normalised(images))
        return features

    def flops(self, masks: Masks | None) -> MonitorFlops:
        assert masks is not None
        image_flops = self.module.image_flops
        encoder, forward = image_flops.encoder_flops(), image_flops.forward_flops(*_sizes(masks))
        return MonitorFlops(encoder, forward - encoder if self._targets_are_features() else forward)

    def predictions(self, images: Tensor, features: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        jepa, images = self.jepa, self.module.normalised(images)
        if self._targets_are_features():
            targets = jepa.select_targets(features, masks.targets)  # [B, T, K, D]
        else:
            targets = jepa.targets(images, masks.targets)
        context = jepa.context_encoder(images, masks.context, masks.valid)
        predictions = jepa.predictor(context, masks.context, masks.targets, masks.valid)
        width = predictions.shape[-1] - jepa.pixels
        return predictions[..., :width], targets[..., :width]

    def _targets_are_features(self) -> bool:
        return self.jepa.target == "output" and self.jepa.depths is None and self.jepa.teacher is None

    def measures(self) -> dict[str, float]:
        """``encoder_distance``: the distance between the weights of context encoder and target encoder."""
        encoders = self.jepa.context_encoder, self.jepa.target_encoder
        return {"encoder_distance": sharding.relative_distance(*(encoder.parameters() for encoder in encoders))}


def _sizes(masks: Masks) -> tuple[int, int, int]:
    """C context patches, T target blocks, K patches per target block."""
    return masks.context.shape[1], masks.targets.shape[1], masks.targets.shape[2]
