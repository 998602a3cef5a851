"""Data loader processes."""

import os
import signal

import torch


def worker_count(requested: int | None, devices: int) -> int:
    """Data loader processes per device: ``requested``; None: one per core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // devices, 8) if requested is None else requested


def start_worker(worker: int) -> None:
    """Initialises a worker process: one thread; SIGINT and SIGTERM are left to the main process."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
