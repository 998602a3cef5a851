"""Health checks during a run: measures on held-out images, and verdicts."""

import contextlib
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ijepa.callbacks.recorder import Recorder
from ijepa.data.datamodule import DataModule
from ijepa.data.heldout import heldout_indices
from ijepa.data.sets import UnreadableError
from ijepa.distributed import sharding
from ijepa.health import check
from ijepa.health.check import Heldout
from ijepa.health.pace import CROPPED, CROPS
from ijepa.health.verdict import Verdict, diagnose
from ijepa.loggers import alert, log_text
from ijepa.run_folder.health import write_verdicts
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import eval_mode
from ijepa.util.randomness import Stream, seed_of

PREFIX = "health/"


class Health(L.Callback):
    """Before training, every ``every`` steps and at the end: measures as ``health/*``, a verdict, ``health.json``.

    Images, crops and masks are the same in all checks. Networks run in float32 (except with bf16-true), because
    rounding adds spurious dimensions. The time of health checks is in `seconds`, not in the run's seconds. Every
    process measures, because sharded weights need all of them; rank 0 prints.

    Args:
        data: with validation images; without any, training images serve.
        recorder: its clock stands still meanwhile; knows the loss.
        every: steps between panels.
        images: how many held-out images.
        path: of health.json.
        seed: of crops and masks.
        warmup_steps: of the learning rate; until then nobody is called healthy.

    Attributes:
        panels: what was measured so far; `verdicts` follow from it.
    """

    def __init__(
        self, data: DataModule, recorder: Recorder, every: int, images: int, path: Path, seed: int, warmup_steps: int
    ) -> None:
        self.data = data
        self.recorder = recorder
        self.every = every
        self.images = images
        self.path = path
        self.seed = seed
        self.warmup_steps = warmup_steps
        self.panels: list[dict[str, float]] = []
        self.verdicts: list[Verdict] = []
        self.seconds = 0.0
        self._heldout: Heldout | None = None
        self._gradient = float("nan")

    def state_dict(self) -> dict[str, Any]:
        return {"panels": self.panels, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.panels, self.seconds = state_dict["panels"], state_dict["seconds"]
        self.verdicts = [diagnose(self.panels[: count + 1], self.warmup_steps) for count in range(len(self.panels))]

    @property
    def newest(self) -> dict[str, float]:
        """The last panel, with its ``step``; empty before the first."""
        return self.panels[-1] if self.panels else {}

    def write(self) -> None:
        """health.json, as it stands."""
        write_verdicts(self.path, [known.plain() for known in self.verdicts], self.seconds)

    def merits(self, step: int) -> dict[str, float]:
        """What tells good networks from better ones at ``step``: the higher the better; {} if unknown, or not well."""
        if self.newest.get("step") != step or self.verdicts[-1].bad:
            return {}
        accuracies = [value for name, value in self.newest.items() if name.rpartition("/")[2] == "knn"]
        accuracies = [value for value in accuracies if math.isfinite(value)]
        found = {name: value for name, value in self.newest.items() if name in ("rankme", "lidar")}
        if accuracies:
            found["knn"] = sum(accuracies) / len(accuracies)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def summary(self) -> str:
        """The last verdict, and what the looks have taken."""
        share = self.seconds / max(self.seconds + self.recorder.seconds, 1e-9)
        looks = f"{len(self.panels)} health checks: {self.seconds:.1f} s, {100 * share:.1f} % of the run"
        return f"health   {self.verdicts[-1].text}\n         {looks}"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0 and not self.panels:
            self._look(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._due(trainer, trainer.global_step + 1):
            began = time.perf_counter()
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._gradient = sharding.norm(gradients)
            self.seconds += time.perf_counter() - began

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self.newest.get("step") and self._due(trainer, trainer.global_step):
            self._look(trainer, pl_module)

    def _due(self, trainer: L.Trainer, step: int) -> bool:
        return step % self.every == 0 or step == trainer.max_steps

    def _look(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        monitor = module.monitor()
        assert monitor is not None
        began = time.perf_counter()
        step = trainer.global_step
        if self._heldout is None:
            self._heldout = self._read()
        if not len(self._heldout.images):
            return
        with eval_mode(module), _tensor_float():
            found = check.health_check(monitor, self._heldout)
        if step:
            found |= {"gradient_norm": self._gradient, "loss": self.recorder.newest()}
        found |= monitor.measures()
        self.panels.append({"step": step, **found})
        verdict = diagnose(self.panels, self.warmup_steps)
        self.verdicts.append(verdict)
        measured = time.perf_counter()
        self.seconds += measured - began
        self._tell(trainer, module, verdict)
        self.seconds += time.perf_counter() - measured
        self.recorder.pause()

    def _tell(self, trainer: L.Trainer, module: TrainingModule, verdict: Verdict) -> None:
        if not trainer.is_global_zero:
            return
        step, last = trainer.global_step, max(trainer.global_step - 1, 0)
        values = {f"{PREFIX}{name}": value for name, value in self.newest.items() if name not in ("step", "loss")}
        for logger in trainer.loggers:
            logger.log_metrics({**self.recorder.totals(), **values, **module.schedule.values(last)}, step=step)
        log_text(trainer.loggers, f"{PREFIX}verdict", verdict.title, step)
        self.write()
        before = self.verdicts[-2].title if len(self.verdicts) > 1 else None
        if verdict.title != before:
            print(f"step {step}  health: {verdict.text}", flush=True)
            if verdict.bad:
                for remedy in verdict.remedies:
                    print(f"         try: {remedy}", flush=True)
                alert(trainer.loggers, f"{verdict.title} at step {step}", verdict.text)

    def _read(self) -> Heldout:
        """Reads images and makes their crops, once."""
        images, transform = self.data.monitor_images, self.data.eval_transform
        views: list[Tensor] = []
        kept: list[int] = []
        crops: list[Tensor] = []
        indices = heldout_indices(images, self.images)
        cropped = set(indices[:: max(min(CROPPED, len(indices) // 2), 1)])  # two at least, to be told apart
        for index in indices:
            try:
                picture = images.read(index)
            except UnreadableError:
                continue
            views.append(transform(picture))
            kept.append(index)
            if index in cropped:
                seeds = [seed_of(self.seed, Stream.HEALTH_CROP, crop, index) for crop in range(CROPS)]
                crops += [self.data.transform(picture, seed) for seed in seeds]
        labels = {name: torch.tensor([theirs[index] for index in kept]) for name, theirs in images.labels.items()}
        masks = None if self.data.masking is None else self.data.masking.sample(self.seed, 0, np.arange(1))
        empty = torch.empty(0, self.data.channels, *transform.size)
        return Heldout(
            torch.stack(views) if views else empty,
            labels if kept else {},
            torch.stack([floats(crop) for crop in crops]) if crops else empty,
            CROPS,
            masks,
        )


@contextlib.contextmanager
def _tensor_float() -> Iterator[None]:
    """Products of float32 matrices in TensorFloat-32 on GPUs: precise enough, and eight times as fast; uncompiled."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.compiler.set_stance("force_eager"):  # else blocks would be compiled again for what is seen here
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def floats(crop: Tensor) -> Tensor:
    """In 0..1, as evaluations see 8-bit images."""
    return crop.float() / 255 if crop.dtype == torch.uint8 else crop
