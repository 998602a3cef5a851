"""The LightningModule of pretraining: hooks only."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from ijepa.data.datamodule import Batch
from ijepa.distributed import sharding
from ijepa.models.jepa import JEPA
from ijepa.training import optimizer as optim
from ijepa.training.objective import Objective
from ijepa.training.schedule import TrainingSchedule


class Pretraining(L.LightningModule):
    """Trains context encoder and predictor by gradient descent; the target encoder is their EMA (momentum) copy.

    Args:
        jepa: the three networks.
        objective: the loss.
        schedule: learning rate, weight decay and EMA momentum by step.
        betas, eps: AdamW's.
        mean, std: per channel, for values in 0..1 (float images: in their units).
        bf16, checkpointing, compiled: see `ijepa.distributed.sharding.prepare`.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        jepa: JEPA,
        objective: Objective,
        schedule: TrainingSchedule,
        betas: tuple[float, float],
        eps: float,
        mean: list[float],
        std: list[float],
        bf16: bool = False,
        checkpointing: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.jepa = jepa
        self.objective = objective
        self.schedule = schedule
        self.betas = betas
        self.eps = eps
        self.bf16 = bf16
        self.checkpointing = checkpointing
        self.compiled = compiled
        self._prepared = False
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def configure_model(self) -> None:
        """Sets up precision, activation checkpointing, compilation and sharding, once the devices are known."""
        if not self._prepared:
            self._prepared = True
            mesh = self.device_mesh and self.device_mesh["data_parallel"]
            sharding.prepare(self.jepa, self.bf16, self.checkpointing, self.compiled, mesh)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The loss of one micro-batch, and its terms."""
        images = batch.images.float() / 255 if batch.images.dtype == torch.uint8 else batch.images
        predictions, targets, context = self.jepa(self.normalised(images), batch.masks)
        loss = self.objective(predictions, targets, context, batch.masks.context, batch.masks.valid)
        parts = {name: part.detach() for name, part in loss._asdict().items() if part is not None}
        return {"loss": loss.total, "parts": parts}

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Normalises images [B, C, H, W] in 0..1 (float images: in their units), on the networks' device."""
        return (images.to(self.mean.device, non_blocking=True) - self.mean) / self.std

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its learning rate and weight decay are set before each step."""
        fused = self.device.type == "cuda"
        return optim.adamw(self.named_parameters(), self.schedule.lr(0), self.betas, self.eps, fused)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One optimiser step, followed by the EMA update of the target encoder.

        The EMA update belongs here: it must happen once per step, also with gradient accumulation, and before any
        callback can write a checkpoint.
        """
        step = self.global_step
        optim.set_hyperparameters(optimizer, self.schedule.lr(step), self.schedule.weight_decay(step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.jepa.update_target_encoder(self.schedule.momentum(step))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keys the optimiser's state by parameter names, so that every strategy can resume from it."""
        state = checkpoint["optimizer_states"][0]
        if state:  # only the first rank holds what is sharded
            sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
            names = [name for name, _ in self.named_parameters()] if sharded else self._optimized()
            checkpoint["optimizer_states"] = [optim.rekey(state, dict(enumerate(names)))]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keys it by number again, as a plain optimiser needs it; the sharding strategy has loaded it by name.

        Also converts Lightning's counts of micro-batches, because the accumulation may have changed.
        """
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counts in (progress["total"], progress["current"]):
            saved_within = counts["processed"] - counts["completed"]  # 1: Lightning adds it
            counts.update(ready=batches, started=batches, processed=batches, completed=batches - saved_within)
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            numbers = {name: number for number, name in enumerate(self._optimized())}
            checkpoint["optimizer_states"] = [optim.rekey(checkpoint["optimizer_states"][0], numbers)]

    def _optimized(self) -> list[str]:
        """The parameters' names in the order in which the optimiser numbers them."""
        return [name for group in optim.groups(self.named_parameters()) for name, _ in group]
