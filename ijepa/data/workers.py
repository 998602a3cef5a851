"""Processes that read images."""

import os
import signal

import torch


def processes(wanted: int | None, devices: int) -> int:
    """Reading processes per device: as ``wanted``, or one per core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // devices, 8) if wanted is None else wanted


def start_worker(worker: int) -> None:
    """One thread each; signals to the whole process group are the main process's to handle."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
