"""Which devices a run has, how precise they are and how they work together."""

import os

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from ijepa import config as schema
from ijepa.errors import ConfigError
from ijepa.evaluation.features import Runtime


def device(hardware: schema.Hardware) -> str:
    """``cpu`` or ``gpu``.

    Raises:
        ConfigError: when there are not as many GPUs as asked for.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if hardware.accelerator == "gpu" and found == 0:
        raise ConfigError("hardware.accelerator", "gpu", "no GPU is visible to torch here; hardware=cpu would do")
    chosen = "cpu" if hardware.accelerator == "cpu" or found == 0 else "gpu"
    if chosen == "gpu" and hardware.devices > found:
        raise ConfigError("hardware.devices", hardware.devices, f"{found} GPUs are visible; {found} would do")
    if hardware.strategy == "single" and hardware.devices * hardware.nodes > 1:
        key, value = ("devices", hardware.devices) if hardware.devices > 1 else ("nodes", hardware.nodes)
        raise ConfigError(f"hardware.{key}", value, "several devices need hardware.strategy=ddp or fsdp")
    return chosen


def precision(hardware: schema.Hardware, accelerator: str) -> str:
    """One of Lightning's names; ``auto`` is bf16 only where the device has instructions for it."""
    if hardware.precision != "auto":
        return hardware.precision
    if accelerator == "gpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16-mixed" if known.get("avx512_bf16") or known.get("amx_bf16") else "32-true"


def runtime(hardware: schema.Hardware) -> Runtime:
    """How evaluate.py runs frozen encoders: on one device; in bf16 only where that is asked for by name.

    What tells images apart can be smaller than the rounding of bf16, in the features of an untrained encoder above all.
    """
    accelerator = device(hardware)
    where = torch.device("cuda" if accelerator == "gpu" else "cpu")
    return Runtime(where, hardware.precision.startswith("bf16"), hardware.compile)


def check_launcher(hardware: schema.Hardware) -> None:
    """Refuses processes that torchrun has started and that would each train alone, in one folder."""
    wanted, started = hardware.devices * hardware.nodes, os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and int(started) != wanted:
        problem = f"torchrun has started {started} processes; add hardware=ddp or fsdp, and devices x nodes as many"
        raise ConfigError("hardware.devices", hardware.devices, problem)


def strategy(hardware: schema.Hardware) -> str | Strategy:
    if hardware.strategy == "fsdp":
        size = hardware.devices * hardware.nodes
        return ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1, save_distributed_checkpoint=False)
    return {"single": "auto", "ddp": "ddp"}[hardware.strategy]
