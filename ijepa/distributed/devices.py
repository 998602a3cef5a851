"""Devices, precision and strategy of a run."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from ijepa import config as schema
from ijepa.distributed import slurm
from ijepa.util.errors import ConfigError


def device(hardware: schema.Hardware) -> str:
    """``cpu`` or ``gpu``.

    Raises:
        ConfigError: if there are fewer GPUs than requested.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if hardware.accelerator == "gpu" and found == 0:
        raise ConfigError("hardware.accelerator", "gpu", "torch sees no GPU; try hardware=cpu")
    chosen = "cpu" if hardware.accelerator == "cpu" or found == 0 else "gpu"
    if chosen == "gpu" and hardware.devices > found:
        raise ConfigError("hardware.devices", hardware.devices, f"torch sees {found} GPUs; try {found}")
    if hardware.strategy == "single" and hardware.devices * hardware.nodes > 1:
        key, value = ("devices", hardware.devices) if hardware.devices > 1 else ("nodes", hardware.nodes)
        raise ConfigError(
            f"hardware.{key}", value, "several devices need a strategy; try hardware.strategy=ddp or fsdp"
        )
    return chosen


def precision(hardware: schema.Hardware, accelerator: str) -> str:
    """One of Lightning's precision names; ``auto`` is bf16 only if the device has instructions for it."""
    if hardware.precision != "auto":
        return hardware.precision
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if known.get("avx512_bf16") or known.get("amx_bf16") else "32-true"


def fabric(hardware: schema.Hardware) -> Fabric | None:
    """A Fabric that starts one process per device; None for a single device."""
    accelerator = device(hardware)
    if hardware.devices * hardware.nodes == 1:
        return None
    backend = "cpu:gloo,cuda:nccl" if accelerator == "gpu" else "gloo"
    return Fabric(
        accelerator="cuda" if accelerator == "gpu" else "cpu",
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=DDPStrategy(process_group_backend=backend),
    )


@contextlib.contextmanager
def launching(fabric: Fabric | None) -> Iterator[None]:
    """Starts the processes of ``fabric``; an error or a signal here ends them, too."""
    if fabric is None:
        yield
        return
    try:
        fabric.launch()
        yield
    except BaseException:
        launcher: Any = fabric.strategy.launcher
        for process in getattr(launcher, "procs", []):
            process.kill()
        raise


def check_launcher(hardware: schema.Hardware) -> None:
    """Rejects processes of torchrun or Slurm that would each train on their own, in the same folder."""
    wanted, started = hardware.devices * hardware.nodes, os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and int(started) != wanted:
        problem = (
            f"torchrun has started {started} processes; add hardware=ddp or fsdp, and set devices x nodes to {started}"
        )
        raise ConfigError("hardware.devices", hardware.devices, problem)
    if "TORCHELASTIC_RUN_ID" in os.environ or not SLURMEnvironment.detect() or slurm.job() is None:
        return
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # that this srun has started; the job may have more
    if tasks > 1 and tasks != wanted:
        problem = f"srun has started {tasks} tasks; try hardware=slurm, one device per task"
        raise ConfigError("hardware.devices", hardware.devices, problem)
    if wanted > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        problem = "--ntasks does not fix the tasks per node; try --nodes and --ntasks-per-node"
        raise ConfigError("hardware.devices", hardware.devices, problem)


def plugins(hardware: schema.Hardware) -> list[ClusterEnvironment]:
    """The cluster environment for the trainer; Lightning's own requeueing is off, `Signals` and `slurm` do it."""
    if "TORCHELASTIC_RUN_ID" in os.environ or not SLURMEnvironment.detect():
        return []
    if hardware.devices * hardware.nodes == 1:
        return [LightningEnvironment()]  # whatever else the job may start
    return [SLURMEnvironment(auto_requeue=False)]


def strategy(hardware: schema.Hardware) -> str | Strategy:
    if hardware.strategy == "fsdp":
        size = hardware.devices * hardware.nodes
        return ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1, save_distributed_checkpoint=False)
    return {"single": "auto", "ddp": "ddp"}[hardware.strategy]
