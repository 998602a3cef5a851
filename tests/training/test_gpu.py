"""Training on a GPU: a step's numbers are the CPU's, and bf16 trains."""

import math

import lightning as L
import pytest
import torch
from helpers import rows, train_config, weights
from lightning.fabric.utilities import move_data_to_device

from ijepa.run import build

pytestmark = pytest.mark.gpu

SMOKE = ("experiment=smoke", "data.workers=0", "callbacks.evaluate_every_epochs=null",
         "callbacks.health_every_steps=null", "callbacks.pictures=null", "schedule.max_steps=3",
         "schedule.warmup_steps=1", "callbacks.log_every_steps=1")  # fmt: skip


def step(folder, device):
    """The gradients of the smoke run's first batch."""
    run = build.run(train_config(*SMOKE, "hardware.precision=32-true"), folder)
    batch = move_data_to_device(next(iter(run.data.train_dataloader())), device)
    run.module.to(device).training_step(batch, 0)["loss"].backward()
    networks = run.module.jepa
    return {name: p.grad.cpu() for name, p in networks.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_training_with_clipped_gradients(tmp_path, optimizer, precision):
    """Fused optimisers, which Lightning by itself does not let clip in bf16-mixed."""
    values = (f"optimizer={optimizer}", f"hardware.precision={precision}", "optimizer.clip_grad_norm=0.1")
    run = build.run(train_config(*SMOKE, *values), tmp_path)
    run.trainer.fit(run.module, run.data)
    assert run.recorder.loss == run.recorder.loss  # not NaN
    assert int(run.module.skipped.total) == 0


def test_a_step_s_gradients_are_the_cpu_s(tmp_path):
    expected, found = (step(tmp_path, device) for device in ("cpu", "cuda"))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, atol=1e-3 * scale + 1e-9, rtol=0)


def test_a_batch_that_is_copied_during_a_step_is_complete(tmp_path):
    """Each arrives as it was, however long the steps before it take."""
    run = build.run(train_config(*SMOKE), tmp_path)
    device, busy = torch.device("cuda", torch.cuda.current_device()), torch.rand(4096, 4096, device="cuda")
    batches = list(run.data.train_dataloader())
    copies = []
    for batch in batches:
        moved = run.data.transfer_batch_to_device(batch, device, 0)
        for _ in range(20):
            busy = (busy @ busy).clamp(0, 1)
        copies.append((moved.images.clone(), moved.masks.targets.clone()))
        del moved
    for batch, (images, targets) in zip(batches, copies, strict=True):
        assert torch.equal(images.cpu(), batch.images)
        assert torch.equal(targets.cpu(), batch.masks.targets)


class SyncsAreErrors(L.Callback):
    """Of what steps compute, as CUDA sees them: from the second to the last but one, between rows of metrics."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if 1 <= trainer.global_step < trainer.max_steps - 1 else "default")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_do_not_wait_for_the_gpu(tmp_path, optimizer):
    values = (f"optimizer={optimizer}", "hardware.precision=bf16-mixed", "schedule.max_steps=6")
    run = build.run(train_config(*SMOKE, *values, "callbacks.log_every_steps=100"), tmp_path)
    run.trainer.callbacks.append(SyncsAreErrors())
    try:
        run.trainer.fit(run.module, run.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_run_ends_near_the_cpu_s(tmp_path, precision):
    """Weights stay float32 in each precision."""
    losses = []
    for hardware, kind in (("cpu", "32-true"), ("gpu", precision)):
        run = build.run(train_config(*SMOKE, f"hardware={hardware}", f"hardware.precision={kind}"), tmp_path / hardware)
        run.trainer.fit(run.module, run.data, weights_only=True)
        losses.append([float(row["train/loss"]) for row in rows(tmp_path / hardware)])
        assert all(tensor.dtype == torch.float32 for tensor in weights(run).values() if tensor.is_floating_point())
    cpu, gpu = losses
    assert all(map(math.isfinite, gpu))
    assert gpu == pytest.approx(cpu, rel=1e-3 if precision == "32-true" else 0.05)
