"""Base class of every LightningModule that a run can train: optimiser, schedule, sharding, resumable checkpoints."""

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

from ijepa.data.datamodule import Batch
from ijepa.distributed import sharding
from ijepa.masking import Masking
from ijepa.models.transformer import write_out_attention
from ijepa.training import optimizer as optim
from ijepa.training.protocol import DecoderMonitor, Execution, Monitor, RunSchedule, Sketches, TrainedEncoder
from ijepa.training.skipping import NonFiniteSteps

SKIPPED_KEY = "skipped_steps"
"""Of a checkpoint: the state of `NonFiniteSteps`."""


class TrainingModule(L.LightningModule, ABC):
    """A LightningModule trained by AdamW or Muon on a schedule; any Lightning strategy can resume its checkpoints.

    A subclass sets the networks as attributes and defines `training_step` and `flops`; every other method has a
    default. Callbacks and the run use only the methods of this class.

    Args:
        schedule: length of the run, and learning rate and weight decay of each step.
        betas: of AdamW.
        eps: of AdamW.
        muon: Muon instead of AdamW on the matrices of transformer blocks.

    Attributes:
        execution: precision, activation checkpointing and compilation; the run sets it before training.
        skipped: the steps that were skipped because their loss or gradients were not finite.
        draws: whether `sketches` draws samples.
    """

    draws = False

    def __init__(self, schedule: RunSchedule, betas: tuple[float, float], eps: float, muon: bool = False) -> None:
        super().__init__()
        self.schedule = schedule
        self.muon = muon
        self.betas = betas
        self.eps = eps
        self.execution = Execution()
        self.skipped = NonFiniteSteps()
        self._configured = False

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The forward pass on one micro-batch.

        Returns:
            ``loss``, a scalar to backpropagate, and ``parts``, detached scalars to log, by name. ``parts["total"]`` is
            required; it is logged as ``train/loss``.
        """

    @abstractmethod
    def flops(self, batch: Batch) -> float:
        """FLOPs of the forward and backward pass on this micro-batch; they depend only on its shapes."""

    def optimizer_flops(self) -> float:
        """FLOPs of an optimiser's step on each device: its products of matrices; AdamW has none."""
        return optim.orthogonalisation_flops(self.named_parameters()) if self.muon else 0.0

    def networks(self) -> list[nn.Module]:
        """The networks to shard, compile and activation-checkpoint; together they hold every parameter.

        A network without trainable parameters counts as frozen. The transformer blocks of a network, if it has any, are
        in its attribute ``blocks``.
        """
        return [network for network in self.children() if any(True for _ in network.parameters())]

    def monitor(self) -> Monitor | DecoderMonitor | None:
        """What health checks measure: features and predictions, of which pictures are drawn, too, or a decoder's
        losses; None disables both.
        """
        return None

    def evaluated(self) -> TrainedEncoder | None:
        """The encoder that tasks evaluate during the run and at its end; None: nothing is evaluated."""
        return None

    def exports(self) -> dict[str, TrainedEncoder | nn.Module]:
        """What a finished run writes to ``NAME.safetensors``: an encoder under timm's names, or a state dict."""
        encoder = self.evaluated()
        return {} if encoder is None else {"encoder": encoder}

    def inputs(self) -> dict[str, TrainedEncoder]:
        """Encoders that training reads and does not change: a run writes them to ``NAME.safetensors`` as it starts."""
        return {}

    def sketches(self, images: Tensor, masking: Masking | None) -> Sketches | None:
        """Samples that a finished run draws, if `draws`; with sharded weights, all ranks call it.

        Args:
            images: [B, C, H, W] in 0..1, held out.
            masking: draws their masks.
        """
        return None

    def checkpoint_extras(self) -> dict[str, Any]:
        """Further entries of a checkpoint, in plain containers (it is loaded with ``weights_only``)."""
        return {}

    def describe(self) -> list[str]:
        """Lines about the networks that the run prints when it starts."""
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return [f"{trained:,} trained parameters"]

    def configure_model(self) -> None:
        """Sets up precision, activation checkpointing, compilation and sharding, once the devices are known."""
        if not self._configured:
            self._configured = True
            if self._in_bf16() and self.trainer.strategy.root_device.type == "cpu":
                write_out_attention(self)
            mesh = self.device_mesh and self.device_mesh["data_parallel"]
            execution = self.execution
            sharding.prepare(self.networks(), execution.bf16, execution.checkpointing, execution.compiled, mesh)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW or Muon; `optimizer_step` sets its learning rate and weight decay before each step."""
        on_gpu = self.device.type == "cuda"
        arguments = (self.named_parameters(), self.schedule.lr(0), self.betas, self.eps, on_gpu)
        if self.muon:  # a GPU has little float32 to offer
            return optim.MuonAdamW(*arguments, bf16=on_gpu or self._in_bf16())
        return optim.adamw(*arguments)

    def _in_bf16(self) -> bool:
        return self.execution.bf16 or self.trainer.precision.startswith("bf16")

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Sets the scheduled learning rate and weight decay, then steps the optimiser.

        Called once per step, not once per micro-batch. A subclass updates an EMA of the weights here, after
        ``super()``: later hooks run after callbacks have written the checkpoint. It leaves the EMA as it is where
        ``self.skipped.last`` is true.
        """
        step = self.global_step
        optim.set_hyperparameters(optimizer, self.schedule.lr(step), self.schedule.weight_decay(step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_before_backward(self, loss: Tensor) -> None:
        """Takes in the loss, to skip the step if it is not finite."""
        self.skipped.note(loss)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skips the step if its loss or gradients are not finite, before they are clipped."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        skip = self.skipped.decide(parameter.grad for parameter in parameters if parameter.grad is not None)
        optim.skip(optimizer, skip)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients' norm as Lightning does, also for fused optimisers in bf16-mixed, which it refuses.

        Only in float16 are gradients scaled, so that a fused optimiser has to see them before they are clipped.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not gradient_clip_val or scaled or gradient_clip_algorithm not in (None, "norm"):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replaces parameter indices in the optimiser's state by names, so that any strategy can resume from it."""
        checkpoint |= self.checkpoint_extras()
        checkpoint[SKIPPED_KEY] = self.skipped.state()
        state = checkpoint["optimizer_states"][0]
        if state:  # with sharding, only global rank 0 holds the state
            sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
            names = [name for name, _ in self.named_parameters()] if sharded else self._optimized_names()
            checkpoint["optimizer_states"] = [optim.rekey(state, dict(enumerate(names)))]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Undoes `on_save_checkpoint`: parameter names in the optimiser's state become indices again.

        Not with a sharding strategy, which loads the state by name. Also recomputes Lightning's counts of micro-batches
        from the number of steps, because gradient accumulation may have changed since the checkpoint was written.
        """
        if SKIPPED_KEY in checkpoint:
            self.skipped.load(checkpoint[SKIPPED_KEY])
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for counts in (progress["total"], progress["current"]):
            unfinished = counts["processed"] - counts["completed"]  # 1 if saved within a batch: Lightning adds it
            counts.update(ready=batches, started=batches, processed=batches, completed=batches - unfinished)
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            indices = {name: index for index, name in enumerate(self._optimized_names())}
            checkpoint["optimizer_states"] = [optim.rekey(checkpoint["optimizer_states"][0], indices)]

    def _optimized_names(self) -> list[str]:
        """Names of the trainable parameters, in the optimiser's order."""
        return [name for group in optim.groups(self.named_parameters(), self.muon) for name, _ in group]
