"""Devices, precision and strategy of a run."""

import contextlib
import os
from collections.abc import Iterator

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy as FabricDDPStrategy
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from ijepa import config as schema
from ijepa.distributed import slurm
from ijepa.util.errors import ConfigError
from ijepa.util.signals import ending_launched, launchers


def device(hardware: schema.Hardware) -> str:
    """The accelerator to use, ``cpu`` or ``gpu``.

    Raises:
        ConfigError: if there are fewer GPUs than requested, or several devices without a strategy.
    """
    gpu_count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if hardware.accelerator == "gpu" and gpu_count == 0:
        raise ConfigError("hardware.accelerator", "gpu", "torch sees no GPU; try hardware=cpu")
    accelerator = "cpu" if hardware.accelerator == "cpu" or gpu_count == 0 else "gpu"
    if accelerator == "gpu" and hardware.devices > gpu_count:
        raise ConfigError("hardware.devices", hardware.devices, f"torch sees {gpu_count} GPUs; try {gpu_count}")
    if hardware.strategy == "single" and hardware.devices * hardware.nodes > 1:
        key, value = ("devices", hardware.devices) if hardware.devices > 1 else ("nodes", hardware.nodes)
        raise ConfigError(
            f"hardware.{key}", value, "several devices need a strategy; try hardware.strategy=ddp or fsdp"
        )
    return accelerator


def precision(hardware: schema.Hardware, accelerator: str) -> str:
    """The precision by Lightning's name; ``auto`` is bf16-mixed if the device has bf16 instructions, else 32-true."""
    if hardware.precision != "auto":
        return hardware.precision
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


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
        strategy=FabricDDPStrategy(process_group_backend=backend),
    )


@contextlib.contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """On a GPU, float32 matrix multiplications are in TensorFloat-32 here, with 10 bits of mantissa, or are not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextlib.contextmanager
def launching(fabric: Fabric | None) -> Iterator[None]:
    """Starts the processes of ``fabric``; an error or signal in this process also ends the others."""
    if fabric is None:
        yield
        return
    launchers.append(fabric.strategy.launcher)
    with ending_launched(patience=0):
        fabric.launch()
        yield


def check_launcher(hardware: schema.Hardware) -> None:
    """Rejects torchrun and Slurm launches whose processes would each train alone, in the same folder.

    Raises:
        ConfigError: if the number of started processes differs from the number of devices.
    """
    devices, started = hardware.devices * hardware.nodes, os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and int(started) != devices:
        problem = (
            f"torchrun has started {started} processes; add hardware=ddp or fsdp, and set devices x nodes to {started}"
        )
        raise ConfigError("hardware.devices", hardware.devices, problem)
    if "TORCHELASTIC_RUN_ID" in os.environ or not SLURMEnvironment.detect() or slurm.job_id() is None:
        return
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # of this srun; the job may have more tasks
    if tasks > 1 and tasks != devices:
        problem = f"srun has started {tasks} tasks; try hardware=slurm, one device per task"
        raise ConfigError("hardware.devices", hardware.devices, problem)
    if devices > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        problem = "--ntasks does not fix the tasks per node; try --nodes and --ntasks-per-node"
        raise ConfigError("hardware.devices", hardware.devices, problem)


def plugins(hardware: schema.Hardware) -> list[ClusterEnvironment]:
    """The trainer's cluster environment; Lightning's requeueing is off, because `Signals` and `slurm` do it."""
    if "TORCHELASTIC_RUN_ID" in os.environ or not SLURMEnvironment.detect():
        return []
    if hardware.devices * hardware.nodes == 1:
        return [LightningEnvironment()]  # with one device, Slurm variables are ignored
    return [SLURMEnvironment(auto_requeue=False)]


def strategy(hardware: schema.Hardware) -> str | Strategy:
    """The trainer's strategy; FSDP2 for ``fsdp``."""
    if hardware.strategy == "fsdp":
        size = hardware.devices * hardware.nodes
        return ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1, save_distributed_checkpoint=False)
    if hardware.strategy == "ddp":  # gradients are views of the buckets that are reduced: no copy, and memory for one
        # Each step uses the same parameters. With accumulation, gradients of some micro-batches are not reduced.
        return DDPStrategy(gradient_as_bucket_view=True, static_graph=hardware.accumulation == 1)
    return "auto"
