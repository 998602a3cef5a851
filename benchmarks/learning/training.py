"""Trains a configuration until it has spent a budget of FLOPs, and measures its encoder on the way."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch

from benchmarks.learning.baselines import Baseline
from ijepa import build_module
from ijepa.api.notebook import PretrainingModule
from ijepa.callbacks.checkpoint import AtomicCheckpointIO
from ijepa.callbacks.health import read_heldout
from ijepa.config import TrainConfig
from ijepa.data.datamodule import DataModule
from ijepa.data.sets import Source
from ijepa.distributed import devices
from ijepa.health.check import Heldout, health_check
from ijepa.health.verdict import HealthCheck
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.run import build
from ijepa.training.protocol import eval_mode

SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the budget after which the encoder is measured."""
WARMUP = 0.1
"""The learning rate's warm-up, as a share of the budget."""
HEALTH_IMAGES = 256
"""Held-out images of the health checks, as by default."""
SAVED_EVERY = 300.0
"""Seconds of training between checkpoints, if there are any; there is also one after each share."""
SAMPLED_STEPS = 64
"""Batches whose masks tell what a step costs on average."""


class Point(NamedTuple):
    """An encoder at a share of the budget, and what it has cost.

    ``encoder``: None for raw pixels. ``checks``: health checks so far, the first before training; [] for baselines.
    """

    share: float
    images: int
    flops: float
    seconds: float
    encoder: PretrainedEncoder | None
    checks: list[HealthCheck]


def untrained(config: TrainConfig, source: Source) -> Point:
    """The encoder before training."""
    return Point(1.0, 0, 0.0, 0.0, build_module(config, _data(config, source)).encoder(), [])


def train(
    config: TrainConfig, source: Source, budget: float, measure: Callable[[Point], None],
    shares: Sequence[float] = SHARES, baseline: Callable[..., Any] | None = None, encoder_only: bool = False,
    checkpoint: Path | None = None,
) -> None:  # fmt: skip
    """Trains; the schedule ends where the budget does.

    Args:
        config: its schedule's length is not used.
        source: training images.
        budget: FLOPs of all of training: every forward and backward pass of every network.
        measure: called at each share; its time does not count.
        shares: of the budget.
        baseline: builds module and batches; None: I-JEPA's.
        encoder_only: only the context encoder's passes count, and the optimiser's.
        checkpoint: file to resume from, exactly, after a stop; deleted at the end.
    """
    config = _of_steps(config, 100_000)
    if baseline is None:
        data = _data(config, source)
        flops = _step_flops(config, data, encoder_only) + build_module(config, data).optimizer_flops()
    else:
        module = baseline(config, source)[0]
        flops = module.image_flops * config.data.batch_size + module.optimizer_flops()
    steps = max(round(budget / flops), len(shares))
    config = _of_steps(config, steps)
    batches: Any
    if baseline is None:
        batches = _data(config, source)
        module = build_module(config, batches)
    else:
        module, batches = baseline(config, source)
    precision: Any = devices.precision(config.hardware, devices.device(config.hardware))
    heldout = None if baseline else read_heldout(batches, HEALTH_IMAGES, config.seed)
    at = {max(1, round(share * steps)): share for share in shares}
    callback = _Shares(at, measure, heldout, encoder_only, checkpoint)
    trainer = L.Trainer(
        accelerator="auto", devices=1, max_steps=steps, precision=precision,
        gradient_clip_val=config.optimizer.clip_grad_norm, callbacks=[callback], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
    trainer.fit(module, batches, ckpt_path=resumed, weights_only=True)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _of_steps(config: TrainConfig, steps: int) -> TrainConfig:
    length = {"max_steps": steps, "epochs": None, "warmup_steps": round(WARMUP * steps)}
    return config.model_copy(update={"schedule": config.schedule.model_copy(update=length)})


def _data(config: TrainConfig, source: Source) -> DataModule:
    steps = build.schedule(config, len(source.train)).max_steps
    return build.data(config.data, source, build.sampler(config), steps, config.hardware, config.seed)


def _step_flops(config: TrainConfig, data: DataModule, encoder_only: bool) -> float:
    """FLOPs of a step before the optimiser's, averaged over the masks of the first steps."""
    image_flops = build.image_flops(config, build.read_teacher(config))
    sampler = build.sampler(config)
    total = 0.0
    for step in range(SAMPLED_STEPS):
        masks = sampler.sample(config.seed, step, torch.arange(1).numpy())
        context = masks.context.shape[1]
        if encoder_only:
            total += image_flops.encoder.step(context)
        else:
            total += image_flops.step_flops(context, *masks.targets.shape[1:])
    return total / SAMPLED_STEPS * data.batch_size


class _Shares(L.Callback):
    """Measures after certain steps; the clock stands still meanwhile."""

    def __init__(
        self, steps: dict[int, float], measure: Callable[[Point], None], heldout: Heldout | None, encoder_only: bool,
        checkpoint: Path | None,
    ) -> None:  # fmt: skip
        self.steps = steps
        self.measure = measure
        self.heldout = heldout
        self.encoder_only = encoder_only
        self.checkpoint = checkpoint
        self.checks: list[HealthCheck] = []
        self.images, self.flops, self.seconds, self.resumed = 0, 0.0, 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "flops": self.flops, "seconds": self.seconds, "checks": self.checks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.images, self.flops, self.seconds = (state_dict[name] for name in ("images", "flops", "seconds"))
        self.checks = state_dict["checks"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.global_step:
            self._check(trainer, pl_module)
        self.resumed = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PretrainingModule | Baseline)
        self.images += len(batch[0])
        self.flops += self._flops(pl_module, batch) + pl_module.optimizer_flops()
        share, trained = self.steps.get(trainer.global_step), time.perf_counter() - self.resumed
        if share is None and (self.checkpoint is None or trained < SAVED_EVERY):
            return
        self.seconds += trained
        if share is not None:
            self._check(trainer, pl_module)
            self.measure(Point(share, self.images, self.flops, self.seconds, pl_module.encoder(), self.checks))
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
        self.resumed = time.perf_counter()

    def _flops(self, module: PretrainingModule | Baseline, batch: Any) -> float:
        if not self.encoder_only:
            return module.flops(batch)
        assert isinstance(module, PretrainingModule)
        return len(batch.images) * module.image_flops.encoder.step(batch.masks.context.shape[1])

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.heldout is None:
            return
        assert isinstance(module, PretrainingModule)
        with eval_mode(module):
            self.checks.append({"step": trainer.global_step, **health_check(module.monitor(), self.heldout)})
