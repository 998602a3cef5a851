"""Base class of whatever a run can train: optimiser, schedule, sharding and resumable checkpoints."""

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from ijepa.data.datamodule import Batch
from ijepa.distributed import sharding
from ijepa.training import optimizer as optim
from ijepa.training.protocol import Execution, Monitor, Scheduled, TrainedEncoder


class TrainingModule(L.LightningModule, ABC):
    """AdamW on a schedule, for any strategy, with checkpoints from which any other strategy can resume.

    A subclass sets the networks as attributes and defines `training_step` and `flops`; every other method has a
    default. Callbacks and the run rely on this class alone.

    Args:
        schedule: length of the run, learning rate and weight decay by step.
        betas, eps: AdamW's.

    Attributes:
        execution: how the networks run; set by the run before training.
    """

    def __init__(self, schedule: Scheduled, betas: tuple[float, float], eps: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.betas = betas
        self.eps = eps
        self.execution = Execution()
        self._prepared = False

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One micro-batch.

        Returns:
            ``loss``, to backpropagate, and ``parts``: detached scalars to log, by name, of which ``total`` is required
            and logged as the loss.
        """

    @abstractmethod
    def flops(self, batch: Batch) -> float:
        """FLOPs of a training step on this micro-batch, forward and backward; only shapes count."""

    def networks(self) -> list[nn.Module]:
        """The networks to shard, compile and activation-checkpoint; together they hold every parameter.

        A network without trainable parameters counts as frozen. Its transformer blocks, if any, are its ``blocks``.
        """
        return [network for network in self.children() if any(True for _ in network.parameters())]

    def monitor(self) -> Monitor | None:
        """What health checks and pictures look at during the run; None disables both."""
        return None

    def evaluated(self) -> TrainedEncoder | None:
        """The encoder that tasks evaluate along the run and at its end; None: nothing is evaluated."""
        return None

    def exports(self) -> dict[str, TrainedEncoder | nn.Module]:
        """What a finished run leaves as ``NAME.safetensors``: an encoder for others, or a network's state dict."""
        encoder = self.evaluated()
        return {} if encoder is None else {"encoder": encoder}

    def checkpoint_extras(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights, in plain containers."""
        return {}

    def describe(self) -> list[str]:
        """The networks, for people: a line or more."""
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return [f"{trained:,} trained parameters"]

    def configure_model(self) -> None:
        """Sets up precision, activation checkpointing, compilation and sharding, once the devices are known."""
        if not self._prepared:
            self._prepared = True
            mesh = self.device_mesh and self.device_mesh["data_parallel"]
            how = self.execution
            sharding.prepare(self.networks(), how.bf16, how.checkpointing, how.compiled, mesh)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; its learning rate and weight decay are set before each step."""
        fused = self.device.type == "cuda"
        return optim.adamw(self.named_parameters(), self.schedule.lr(0), self.betas, self.eps, fused)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step of the optimiser, whatever the accumulation.

        What follows the weights, such as a moving average, belongs here, after ``super()``: before any callback can
        write a checkpoint.
        """
        step = self.global_step
        optim.set_hyperparameters(optimizer, self.schedule.lr(step), self.schedule.weight_decay(step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keys the optimiser's state by parameter names, so that every strategy can resume from it."""
        checkpoint |= self.checkpoint_extras()
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
