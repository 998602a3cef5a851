"""Trains a configuration until it has spent a budget of FLOPs, and measures its encoder on the way."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch

from ijepa import build_module, compose_config
from ijepa.api import NotebookPretraining
from ijepa.config import TrainConfig
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Source
from ijepa.distributed import devices
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.run import build

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the budget after which the encoder is measured."""
WARMUP = 0.1
"""The learning rate's warm-up, as a share of the budget."""
SAMPLED_STEPS = 64
"""Batches whose masks tell what a step costs on average."""


class Point(NamedTuple):
    """An encoder at a share of the budget, and what it has cost."""

    share: float
    images: int
    flops: float
    seconds: float
    encoder: PretrainedEncoder
    module: NotebookPretraining


def pretrain(
    overrides: Sequence[str], source: Source, budget: float, measure: Callable[[Point], None],
    shares: Sequence[float] = SHARES,
) -> TrainConfig:  # fmt: skip
    """Trains; the schedule ends where the budget does.

    Args:
        overrides: of the configuration, as on the command line.
        source: training images.
        budget: FLOPs of all of training: target encoder, context encoder and predictor, forward and backward.
        measure: called at each share; its time does not count.
        shares: of the budget.

    Returns:
        The configuration.
    """
    config = compose_config(*overrides, *_length(100_000))
    data = _data(config, source)
    steps = max(round(budget / _step_flops(config, data)), len(shares))
    config = compose_config(*overrides, *_length(steps))
    data = _data(config, source)
    module = build_module(config, data)
    precision: Any = devices.precision(config.hardware, devices.device(config.hardware))
    callback = _Shares({max(1, round(share * steps)): share for share in shares}, measure)
    trainer = L.Trainer(
        accelerator="auto", devices=1, max_steps=steps, precision=precision,
        gradient_clip_val=config.optimizer.clip_grad_norm, callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    return config


def _length(steps: int) -> list[str]:
    warmup = round(WARMUP * steps)
    return [f"schedule.max_steps={steps}", "schedule.epochs=null", f"schedule.warmup_steps={warmup}"]


def _data(config: TrainConfig, source: Source) -> DataModule:
    steps = build.schedule(config, len(source.train)).max_steps
    return build.data(config.data, source, build.sampler(config), steps, config.hardware, config.seed)


def _step_flops(config: TrainConfig, data: DataModule) -> float:
    """FLOPs of a step, averaged over the masks of the first steps."""
    image_flops, sampler = build.image_flops(config), build.sampler(config)
    total = 0.0
    for step in range(SAMPLED_STEPS):
        masks = sampler.sample(config.seed, step, torch.arange(1).numpy())
        total += image_flops.step_flops(masks.context.shape[1], *masks.targets.shape[1:])
    return total / SAMPLED_STEPS * data.batch_size


class _Shares(L.Callback):
    """Measures after certain steps; the clock stands still meanwhile."""

    def __init__(self, steps: dict[int, float], measure: Callable[[Point], None]) -> None:
        self.steps = steps
        self.measure = measure
        self.images, self.flops, self.seconds, self.resumed = 0, 0.0, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.resumed = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, NotebookPretraining)
        self.images += len(batch.images)
        self.flops += pl_module.flops(batch)
        share = self.steps.get(trainer.global_step)
        if share is not None:
            self.seconds += time.perf_counter() - self.resumed
            self.measure(Point(share, self.images, self.flops, self.seconds, pl_module.encoder(), pl_module))
            self.resumed = time.perf_counter()
