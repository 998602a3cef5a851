"""Signals of commands: what ends them, and how often it was sent."""

import contextlib
import math
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ijepa.util.errors import InterruptedRunError

REPEAT_SECONDS = 0.1
"""A signal that comes twice within this time was sent once: `timeout` sends it to the process and to its group."""
PATIENCE = 5.0
"""Seconds for the processes of other devices to end by themselves when this one has failed."""
STOPPED = "stopped by SIGTERM"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

raised: list[int] = []
"""Signals for which an exception was raised; not empty when a run begins if other code has swallowed it."""
launchers: list[Any] = []
"""Lightning's launchers of processes for other devices, which end with this one."""
_last: dict[int, float] = {}


def is_repeat(number: int) -> bool:
    """Whether a signal's handler runs again for what was sent once; call it once in each handler."""
    now = time.monotonic()
    before, _last[number] = _last.get(number, -math.inf), now
    return now - before < REPEAT_SECONDS


class SigtermHandler:
    """Raises `InterruptedRunError` at the first SIGTERM, and ends the process at the second."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if is_repeat(number):
            return
        self.received.append(number)
        if len(self.received) == 1:
            raised.append(number)
            raise InterruptedRunError(number, STOPPED)
        kill_launched()
        for process in multiprocessing.active_children():
            process.kill()
        os._exit(128 + number)


def take_launched() -> list[Any]:
    """The processes that `launchers` have started so far, removed from their lists.

    Lightning would otherwise end this process when one of them ends.
    """
    taken: list[Any] = []
    for launcher in launchers:
        processes: list[Any] = getattr(launcher, "procs", [])
        taken += processes
        processes.clear()
    return taken


def kill_launched() -> None:
    """Kills the processes that `launchers` have started so far."""
    for process in take_launched():
        process.kill()


@contextlib.contextmanager
def ending_launched(patience: float = PATIENCE) -> Iterator[None]:
    """If the block fails, ends the processes that `launchers` have started: they may be waiting for this one.

    ``patience``: seconds for them to end by themselves.
    """
    try:
        yield
    except BaseException:
        end = time.monotonic() + patience
        for process in take_launched():
            try:
                process.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                process.kill()
        raise
    finally:
        launchers.clear()


def handles_sigterm() -> bool:
    """Whether SIGTERM has the handler of `stopping_on_sigterm`, not one of a launcher's."""
    return isinstance(signal.getsignal(signal.SIGTERM), SigtermHandler)


@contextlib.contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM raises `InterruptedRunError`, so that files are completed or removed; a second one ends the process.

    Only in the first of several processes, which ends the others: one of them may wait in C++, where no handler runs.
    """
    others = any(os.environ.get(name, "0") != "0" for name in RANKS)
    if others or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = SigtermHandler()
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
        if handler.received:  # the exception was raised in a finaliser, say, where Python ignores it
            raise InterruptedRunError(signal.SIGTERM, STOPPED)
    except InterruptedRunError:
        raise
    except Exception:
        if handler.received:  # other code has made an error of its own of the exception
            raise InterruptedRunError(signal.SIGTERM, STOPPED) from None
        raise
    finally:
        raised[:] = [number for number in raised if number != signal.SIGTERM]
        if not handler.received:  # else a repeat would end the process before it has said what is kept
            signal.signal(signal.SIGTERM, before)


def leave_sigint_to_system() -> None:
    """Ctrl-C ends the process at once, as long as it imports: no traceback from within the imports."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in a script's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def raising_on_sigint() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt again, after `leave_sigint_to_system`."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
