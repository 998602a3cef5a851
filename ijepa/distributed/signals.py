"""Ends a run gracefully on SIGINT (Ctrl-C), SIGTERM, and the signals that clusters send before a time limit."""

import contextlib
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ijepa.distributed import slurm
from ijepa.util.errors import InterruptedRunError, StoppedJobError
from ijepa.util.signals import is_repeat, launchers, raised, take_launched

if TYPE_CHECKING:
    import lightning as L

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, *(slurm.WARNING_SIGNALS if slurm.job_id() else ()))


def is_spawned_rank() -> bool:
    """Whether Lightning on rank 0 has started this process for another device."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and "TORCHELASTIC_RUN_ID" not in os.environ


def install_sigint_handler() -> None:
    """Makes Ctrl-C raise KeyboardInterrupt; if other code swallows it, the next run ends as soon as it begins."""
    raised.clear()
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if is_repeat(number):
        return
    raised.append(number)
    raise KeyboardInterrupt


POLL_SECONDS = 0.2
_worker_signals: list[int] = []
"""Signals received by this launcher's worker process."""
_running_jobs: list[str] = []
"""Not empty while a job runs in this worker process."""


@contextlib.contextmanager
def defer_sigint_to_jobs() -> Iterator[list[int]]:
    """On Ctrl-C, waits until the jobs in other processes, which also receive the signal, have saved and ended.

    Processes started in this context have SIGINT blocked until `run_in_worker` unblocks it; otherwise a launcher's
    intermediate processes would immediately end the runs that they supervise.

    Yields:
        the list of received signals.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None = None) -> None:
        received.append(number)
        if len(received) > 2:  # the jobs ended at the second signal, but the launcher has not noticed
            os._exit(128 + number)
        again = "once more ends them at once" if len(received) == 1 else "they end at once"
        with contextlib.suppress(OSError):  # stdout is closed
            os.write(1, f"\n{signal.Signals(number).name}: the jobs end after their current steps; {again}\n".encode())

    finished = threading.Event()

    def listen() -> None:
        while not finished.is_set():
            if signal.sigtimedwait([signal.SIGINT], POLL_SECONDS):
                handle(signal.SIGINT)

    previous = signal.signal(signal.SIGINT, handle)  # delivered to any thread that does not block it
    listener = threading.Thread(target=listen, daemon=True)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        from joblib.externals.loky.backend import resource_tracker  # takes a while to import

        for tracker in (multiprocessing.resource_tracker, resource_tracker):
            tracker.ensure_running()  # started later, it would unblock SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if hasattr(signal, "sigtimedwait"):  # not on macOS, where the signal is handled at the end
            listener.start()
    try:
        yield received
    finally:
        finished.set()
        if listener.is_alive():
            listener.join()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, previous)


def run_in_worker(job: Callable[[], float | None]) -> float | None:
    """Runs ``job()`` in a launcher's worker process, which may run several jobs; after Ctrl-C no further job begins.

    Ctrl-C does not end the process between jobs either, because joblib would then end all other jobs.

    Raises:
        StoppedJobError: if the job was stopped; other exceptions would end the launcher itself.
    """
    with contextlib.suppress(ValueError):  # outside the main thread, which receives no signals anyway
        signal.signal(signal.SIGINT, _handle_in_worker)
    _running_jobs.append("job")
    try:
        _set_blocked(False)
        if _worker_signals:
            raise StoppedJobError("")
        return job()
    except KeyboardInterrupt:
        raise StoppedJobError("") from None
    except InterruptedRunError as interruption:
        if interruption.signal != signal.SIGINT:
            raise
        _worker_signals.append(interruption.signal)
        raise StoppedJobError(str(interruption)) from None
    finally:
        _running_jobs.clear()


def _handle_in_worker(number: int, frame: FrameType | None) -> None:
    if _worker_signals and _running_jobs:
        os._exit(128 + number)
    _worker_signals.append(number)
    if _running_jobs:
        raise KeyboardInterrupt


class Signals:
    """Handles signals during a run; a context manager around the whole run.

    While `training`, the first signal is stored and handled at the end of the step; a second one ends the process at
    once, unless it comes together with the first. Outside the training loop, a signal kills the processes launched for
    other devices and raises `InterruptedRunError` at once. Those processes ignore the signal and leave it to rank 0: if
    one of them ended, the others would wait for it inside C++, where no Python handler runs.

    Attributes:
        number: the received signal, or None.
        training: whether the training loop runs; set by its callers.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.training = False
        self._previous_handlers: dict[int, Any] = {}

    def watch(self, trainer: "L.Trainer") -> None:
        """Keeps these handlers during ``trainer.fit``; Lightning's SIGTERM handler would exit with code 0."""
        connector = trainer._signal_connector  # private, because Lightning always runs its own handlers first
        register = connector.register_signal_handlers

        def registered() -> None:
            register()
            self._install()
            _set_blocked(False)

        connector.register_signal_handlers = registered  # type: ignore[method-assign]
        launcher: Any = trainer.strategy.launcher
        launch: Any = getattr(launcher, "_call_children_scripts", None)

        def launching() -> None:
            _set_blocked(True)  # the new processes start with signals blocked, until `registered` installs handlers
            try:
                launch()
            finally:
                _set_blocked(False)

        if launch is not None:
            launcher._call_children_scripts = launching
            launchers.append(launcher)

    def __enter__(self) -> "Signals":
        if raised or _worker_signals:
            raise InterruptedRunError((raised or _worker_signals).pop(), "")
        self._previous_handlers = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)

    def _install(self) -> None:
        for number in HANDLED_SIGNALS:
            with contextlib.suppress(ValueError):  # outside the main thread, which receives no signals anyway
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if is_repeat(number):
            return
        first = self.number is None
        self.number = self.number or number
        if not self.training:
            if is_spawned_rank():
                return
            for process in take_launched():
                process.kill()
                process.wait()
            raise InterruptedRunError(self.number, "")
        if not first:
            if slurm.job_id():
                return  # Slurm may repeat signals, and sends them to several processes; it kills slow jobs itself
            self._kill_all()
        with contextlib.suppress(OSError):  # stdout is closed; os.write, because print is not reentrant
            again = "" if slurm.job_id() else "; once more to end at once"
            os.write(1, f"\n{signal.Signals(number).name}: the run ends after this step{again}\n".encode())

    def _kill_all(self) -> None:
        """Kills this process and all processes that it has started."""
        for process in [*take_launched(), *multiprocessing.active_children()]:
            process.kill()
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # the progress bar hides the cursor
        assert self.number is not None
        os._exit(128 + self.number)


def _set_blocked(blocked: bool) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, HANDLED_SIGNALS)
