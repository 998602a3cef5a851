"""Imports that take seconds."""

import contextlib
import gc
import signal
import sys
from collections.abc import Iterator

from ijepa.util.processes import is_rank_zero
from ijepa.util.signals import handles_sigterm


@contextlib.contextmanager
def immediate_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the process at once, for imports: inside of libraries, an exception can get lost."""
    own = [signal.SIGINT, *([signal.SIGTERM] if handles_sigterm() else [])]  # submitit, too, has a handler of SIGTERM
    before = {number: signal.signal(number, signal.SIG_DFL) for number in own}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def loading(libraries: str) -> Iterator[None]:
    """`immediate_signals` for imports that take seconds, which --help and misspelt keys need not wait for; says so.

    Garbage collection is off during imports, and their objects are frozen, so that loading and exit are fast.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(immediate_signals())
        if "torch" not in sys.modules:  # in a sweep, an earlier run's garbage must not be kept
            if is_rank_zero():
                print(f"loading {libraries} ...", flush=True)
            stack.enter_context(_without_collection())
        yield


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
