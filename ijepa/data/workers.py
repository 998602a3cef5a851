"""Data loader processes."""

import os
import signal

import torch


def processes(wanted: int | None, devices: int) -> int:
    """Data loader processes per device: ``wanted``, or (None) one per core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // devices, 8) if wanted is None else wanted


def start_worker(worker: int) -> None:
    """Initialises a worker: one thread; signals to the process group are left to the main process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
