"""Health checks during a run: measures on held-out images, and verdicts."""

import math
import time
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
from ijepa.distributed import devices, sharding
from ijepa.health.check import Heldout
from ijepa.health.kinds import Kind
from ijepa.health.pace import CROP_EVERY, CROPS_PER_IMAGE
from ijepa.health.verdict import Verdict
from ijepa.loggers import alert, log_text
from ijepa.run_folder.health import write_verdicts
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import eval_mode
from ijepa.util.randomness import Stream, seed_of

PREFIX = "health/"
UNLOGGED = ("step", "loss", "skipped")
"""Entries of `Health.checks` that are logged elsewhere."""


class Health(L.Callback):
    """Before training, every ``every`` steps and at the end: logs ``health/*`` and a verdict, and writes health.json.

    Images, crops and masks are the same in all checks. Networks run in float32 (except with bf16-true), because
    rounding adds spurious dimensions. The time of health checks counts in `seconds`, not in the run's seconds. Every
    process measures, because weights may be sharded; rank 0 prints.

    Args:
        kind: what is measured, and how it is judged.
        data: its validation images are used, or training images if there are none.
        recorder: provides the loss; its clock excludes the time of health checks.
        every: steps between health checks.
        images: number of held-out images.
        path: of health.json.
        seed: of crops and masks.
        warmup_steps: length of the learning rate's warm-up; until then no run is called healthy.

    Attributes:
        checks: the measures of each health check so far, with its ``step``.
        verdicts: one per health check.
        seconds: time of all health checks.
    """

    def __init__(
        self, kind: Kind, data: DataModule, recorder: Recorder, every: int, images: int, path: Path, seed: int,
        warmup_steps: int,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.data = data
        self.recorder = recorder
        self.every = every
        self.images = images
        self.path = path
        self.seed = seed
        self.warmup_steps = warmup_steps
        self.checks: list[dict[str, float]] = []
        self.verdicts: list[Verdict] = []
        self.seconds = 0.0
        self._heldout: Heldout | None = None
        self._gradient = float("nan")

    def state_dict(self) -> dict[str, Any]:
        return {"panels": self.checks, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.checks, self.seconds = state_dict["panels"], state_dict["seconds"]
        self.verdicts = [
            self.kind.diagnose(self.checks[: count + 1], self.warmup_steps) for count in range(len(self.checks))
        ]

    @property
    def latest(self) -> dict[str, float]:
        """The last of `checks`; empty before the first."""
        return self.checks[-1] if self.checks else {}

    def write(self) -> None:
        """Writes health.json."""
        write_verdicts(self.path, [verdict.plain() for verdict in self.verdicts], self.seconds)

    def selection_scores(self, step: int) -> dict[str, float]:
        """Scores that choose the best checkpoints: ``rankme``, ``lidar``, and ``knn`` averaged over label sets.

        Higher is better; {} if ``step`` has no health check, or the run collapses or diverges there.
        """
        if self.latest.get("step") != step or self.verdicts[-1].failing:
            return {}
        accuracies = [value for name, value in self.latest.items() if name.rpartition("/")[2] == "knn"]
        accuracies = [value for value in accuracies if math.isfinite(value)]
        scores = {name: value for name, value in self.latest.items() if name in ("rankme", "lidar")}
        if accuracies:
            scores["knn"] = sum(accuracies) / len(accuracies)
        return {name: value for name, value in scores.items() if math.isfinite(value)}

    def summary(self) -> str:
        """The last verdict, and the time of all health checks, for the terminal."""
        trained = self.recorder.seconds - self.recorder.earlier_seconds
        fraction = self.seconds / max(self.seconds + trained, 1e-9)
        cost = f"{len(self.checks)} health checks: {self.seconds:.1f} s, {100 * fraction:.1f} % of the run"
        return f"health   {self.verdicts[-1].text}\n         {cost}"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0 and not self.checks:
            self._check(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._due(trainer, trainer.global_step + 1):
            start = time.perf_counter()
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._gradient = sharding.global_norm(gradients)
            self.seconds += time.perf_counter() - start

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self.latest.get("step") and self._due(trainer, trainer.global_step):
            self._check(trainer, pl_module)

    def _due(self, trainer: L.Trainer, step: int) -> bool:
        return step % self.every == 0 or step == trainer.max_steps

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        monitor = module.monitor()
        assert monitor is not None
        start = time.perf_counter()
        step = trainer.global_step
        if self._heldout is None:
            self._heldout = read_heldout(self.data, self.images, self.seed)
        if not len(self._heldout.images):
            return
        eager = torch.compiler.set_stance("force_eager")  # else blocks are recompiled for these shapes
        with eval_mode(module), eager, devices.tf32(True):  # precise enough, and faster
            measures = self.kind.check(monitor, self._heldout)
        if step:
            loss, skipped = self.recorder.current_loss(), int(module.skipped.in_a_row)
            # one skipped step does no harm, and its gradients say nothing
            measures |= {"skipped": skipped} if skipped else {"gradient_norm": self._gradient, "loss": loss}
        self.checks.append({"step": step, **measures})
        verdict = self.kind.diagnose(self.checks, self.warmup_steps)
        self.verdicts.append(verdict)
        reporting = time.perf_counter()
        self.seconds += reporting - start
        self._report(trainer, module, verdict)
        self.seconds += time.perf_counter() - reporting
        self.recorder.restart_clock()

    def _report(self, trainer: L.Trainer, module: TrainingModule, verdict: Verdict) -> None:
        if not trainer.is_global_zero:
            return
        step, last = trainer.global_step, max(trainer.global_step - 1, 0)
        values = {f"{PREFIX}{name}": value for name, value in self.latest.items() if name not in UNLOGGED}
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


def read_heldout(data: DataModule, count: int, seed: int) -> Heldout:
    """Reads up to ``count`` held-out images and makes their crops; unreadable images are skipped."""
    images, transform = data.monitor_images, data.eval_transform
    transformed: list[Tensor] = []
    readable: list[int] = []
    crops: list[Tensor] = []
    indices = heldout_indices(images, count)
    cropped = set(indices[:: max(min(CROP_EVERY, len(indices) // 2), 1)])  # LiDAR needs at least two
    for index in indices:
        try:
            picture = images.read(index)
        except UnreadableError:
            continue
        transformed.append(transform(picture))
        readable.append(index)
        if index in cropped:
            seeds = [seed_of(seed, Stream.HEALTH_CROP, crop, index) for crop in range(CROPS_PER_IMAGE)]
            crops += [data.transform(picture, crop_seed) for crop_seed in seeds]
    labels = {name: torch.tensor([classes[index] for index in readable]) for name, classes in images.labels.items()}
    masks = None if data.masking is None else data.masking.sample(seed, 0, np.arange(1))
    empty = torch.empty(0, data.channels, *transform.size)
    return Heldout(
        torch.stack(transformed) if transformed else empty,
        labels if readable else {},
        torch.stack([floats(crop) for crop in crops]) if crops else empty,
        CROPS_PER_IMAGE,
        masks,
    )


def floats(crop: Tensor) -> Tensor:
    """As float32; uint8 is scaled to 0..1, as in evaluations."""
    return crop.float() / 255 if crop.dtype == torch.uint8 else crop
