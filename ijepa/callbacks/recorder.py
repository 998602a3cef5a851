"""Counts images, FLOPs and seconds, and logs them with the training loss."""

import time
from typing import Any

import lightning as L
import torch

from ijepa.data.datamodule import Batch
from ijepa.training.base import TrainingModule

COUNT = ""
"""Beside the sums of the parts of the loss: how many micro-batches they contain."""


class Recorder(L.Callback):
    """Every ``every`` steps, logs the mean of each part of the loss since the last row, the schedule, and the totals.

    Micro-batches whose loss is not finite are left out of the mean.
    The totals are cumulative over the whole run, also if it was resumed, for plots of accuracy against compute.

    Args:
        every: steps between rows.
        batch_size: effective (global) batch size: images per step, over all devices and micro-batches.
        epoch_images: images per epoch.

    Attributes:
        images, flops, seconds: totals over all devices; seconds of training only.
        loss: the mean in the last row.
        unreadable: messages about files that could not be read.
    """

    def __init__(self, every: int, batch_size: int, epoch_images: int) -> None:
        self.every = every
        self.batch_size = batch_size
        self.epoch_images = epoch_images
        self.images = 0
        self.flops = 0.0
        self.seconds = 0.0
        self.earlier_seconds = 0.0
        self.loss = float("nan")
        self.images_per_second = 0.0
        self.unreadable: dict[str, None] = {}
        self._faults: list[str] = []
        self._sums: dict[str, torch.Tensor] = {}
        self._step_sums: dict[str, torch.Tensor] = {}
        self._step_flops = 0.0
        self._clock = 0.0
        self._window = (0, 0.0)

    def state_dict(self) -> dict[str, Any]:
        totals = {"images": self.images, "flops": self.flops, "seconds": self.seconds, "loss": self.loss}
        sums = {name: _mean_of_ranks(value) for name, value in self._sums.items()}
        totals["earlier_seconds"] = self.earlier_seconds
        return {**totals, "unreadable": list(self.unreadable), "sums": sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images, self.flops, self.seconds = (state_dict[name] for name in ("images", "flops", "seconds"))
        self.earlier_seconds = state_dict.get("earlier_seconds", 0.0)  # older checkpoints have none
        self.loss, self._sums = state_dict["loss"], state_dict["sums"]
        if self._sums and COUNT not in self._sums:  # of an older version, which counted apart
            self._sums[COUNT] = torch.tensor(float(state_dict["count"]))
        self.unreadable = dict.fromkeys(state_dict["unreadable"])

    def totals(self) -> dict[str, float]:
        """Images, epochs, FLOPs and seconds so far."""
        return {
            "images": self.images,
            "epoch": self.images / self.epoch_images,
            "flops": self.flops,
            "seconds": self.seconds,
        }

    def add(self, spent: dict[str, Any]) -> None:
        """Adds the FLOPs and seconds that were ``spent`` on another run, which this one needs."""
        self.flops += float(spent.get("flops", 0.0))
        seconds = float(spent.get("seconds", 0.0))
        self.earlier_seconds += seconds
        self.seconds += seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock = time.perf_counter()
        self._window = (self.images, self.seconds)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        self._faults += batch.unreadable
        parts = outputs["parts"]
        finite = torch.stack([value.isfinite() for value in parts.values()]).all()  # on the device: no waiting for it
        for name, value in {**parts, COUNT: torch.ones_like(parts["total"])}.items():
            _add(self._step_sums, name, torch.where(finite, value, 0.0))
        self._step_flops += pl_module.flops(batch) * trainer.world_size
        if trainer.global_step == self._step:
            return  # within gradient accumulation; a step that is not completed is repeated when the run resumes
        for name, value in self._step_sums.items():
            _add(self._sums, name, value)
        self.flops += self._step_flops
        self._step_sums, self._step_flops = {}, 0.0
        self._step = trainer.global_step
        self.flops += pl_module.optimizer_flops() * trainer.world_size
        self.images = trainer.global_step * self.batch_size
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        if trainer.global_step % self.every == 0 or trainer.global_step in (1, pl_module.schedule.max_steps):
            self._record(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._print_unreadable(trainer)  # the row in progress is stored in the checkpoint

    def current_loss(self) -> float:
        """The mean loss since the last row, or of the last row if no step followed; every process calls it."""
        if not self._sums:
            return self.loss
        return float(_mean_of_ranks(self._sums["total"]) / _mean_of_ranks(self._sums[COUNT]))

    def restart_clock(self) -> None:
        """Excludes the time since the last step from the seconds, for example that of an evaluation."""
        self._clock = time.perf_counter()

    def _print_unreadable(self, trainer: L.Trainer) -> None:
        """Prints, once, the files that any process could not read since the last row."""
        faults_by_rank = [self._faults]
        if trainer.world_size > 1:
            faults_by_rank = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(faults_by_rank, self._faults)
        for fault in (fault for faults in faults_by_rank for fault in faults):
            if fault not in self.unreadable:
                self.unreadable[fault] = None
                trainer.print(f"unreadable, replaced by the next image: {fault}")
        self._faults = []

    def _record(self, trainer: L.Trainer, module: TrainingModule) -> None:
        self._print_unreadable(trainer)
        sums = trainer.strategy.reduce(torch.stack(list(self._sums.values())), reduce_op="mean")
        count = list(self._sums).index(COUNT)
        values = dict(zip(self._sums, (sums / sums[count]).tolist(), strict=True))
        del values[COUNT]
        self._sums = {}
        values = {"loss": values.pop("total"), **values}
        self.loss = values["loss"]
        images, seconds = self._window
        self.images_per_second = (self.images - images) / max(self.seconds - seconds, 1e-9)
        self._window = (self.images, self.seconds)
        last = trainer.global_step - 1
        row = {
            **self.totals(),
            **{f"train/{name}": value for name, value in values.items()},
            **module.schedule.values(last),
            "images_per_second": self.images_per_second,
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)


def _add(sums: dict[str, torch.Tensor], name: str, value: torch.Tensor) -> None:
    sums[name] = sums[name].to(value.device) + value if name in sums else value


def _mean_of_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean over all processes, on the CPU; every process must call it."""
    if torch.distributed.is_initialized():
        value = value.clone()
        torch.distributed.all_reduce(value)
        value /= torch.distributed.get_world_size()
    return value.cpu()
