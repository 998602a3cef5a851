"""Data loader processes: how many, how they start, and what each is doing, for when one dies or hangs."""

import contextlib
import ctypes
import gc
import os
import signal
from collections.abc import Iterator
from multiprocessing import RawArray
from typing import Any

import torch

LEFT_TO_MAIN = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
"""Signals that are sent to all processes of a run, and end it: from a terminal, a cluster or a container."""
crashing: dict[str, str] = {}
"""Files at which data loader processes have died, and how; no process reads them again."""


class Slot(ctypes.Structure):
    """What one process is doing, in memory that the main process can see.

    pid: of the process.
    turns: how many times it has begun or finished an item or a batch; odd while it is busy.
    file: the file that it is reading; empty if none.
    """

    _fields_ = (("pid", ctypes.c_long), ("turns", ctypes.c_long), ("file", ctypes.c_char * 4096))


_slots = RawArray(Slot, 1)
"""Of this process: [0] is in use in the main process; a data loader process gets that of its number."""
_number = 0


def new_slots(count: int) -> Any:
    """Slots for ``count`` processes."""
    return RawArray(Slot, count)


def worker_count(requested: int | None, devices: int) -> int:
    """Data loader processes per device: ``requested``; None: one per core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores // devices, 8) if requested is None else requested


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Processes that are started here have signals blocked until `start_worker` ignores them.

    They would otherwise run the handlers of the main process, which end the run.
    """
    before = _set_blocked(True)
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_blocked(blocked: bool) -> set[int] | None:
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        return None
    return set(signal.pthread_sigmask(signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, LEFT_TO_MAIN))


def start_worker(worker: int, slots: Any, known: dict[str, str]) -> None:
    """Initialises a worker process: one thread; signals that end a run are left to the main process.

    Args:
        worker: its number.
        slots: of all workers, from `new_slots`.
        known: `crashing` of the main process.
    """
    global _slots, _number
    gc.freeze()  # else garbage collection writes to the main process's objects, and their memory is copied
    torch.set_num_threads(1)
    for number in LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    _set_blocked(False)
    _slots, _number = slots, worker
    _slots[_number].pid = os.getpid()
    crashing.update(known)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Notes that this process works on an item or a batch."""
    slot = _slots[_number]
    slot.turns += 1
    try:
        yield
    finally:
        slot.turns += 1


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Notes that this process reads the file ``path``.

    Raises:
        OSError: if processes have died at this file; it is not read again.
    """
    if path in crashing:
        raise OSError(crashing[path])
    slot = _slots[_number]
    slot.file = path.encode(errors="surrogateescape")[:4096]
    try:
        yield
    finally:
        slot.file = b""
