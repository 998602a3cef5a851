"""Ends a run gracefully on SIGINT (Ctrl-C) and SIGTERM, and on the signals that clusters send before a time limit."""

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

if TYPE_CHECKING:
    import lightning as L

NUMBERS = (signal.SIGINT, signal.SIGTERM, *(slurm.WARNINGS if slurm.job() else ()))


def is_spawned_rank() -> bool:
    """Whether Lightning has started this process for another device, from rank 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and "TORCHELASTIC_RUN_ID" not in os.environ


_lost: list[int] = []
"""Signals for which `KeyboardInterrupt` was raised; if one is left when a run begins, other code has swallowed it."""


def before_a_run() -> None:
    """From now on, Ctrl-C raises KeyboardInterrupt; if other code swallows it, the run ends when it begins."""
    _lost.clear()
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _lost.append(number)
    raise KeyboardInterrupt


POLL_SECONDS = 0.2
_stopped: list[int] = []
"""Signals received by this process, if a launcher has started it."""
_busy: list[str] = []
"""Not empty while a job runs in it."""


@contextlib.contextmanager
def defer_sigint_to_jobs() -> Iterator[list[int]]:
    """On Ctrl-C, waits for jobs in other processes, which also get the signal, to save and end.

    Processes that are started meanwhile begin with SIGINT blocked until `run_in_worker` handles it; otherwise a
    launcher's intermediate processes would end the run that they supervise at once.

    Yields:
        the list of received signals.
    """
    came: list[int] = []

    def take(number: int, frame: FrameType | None = None) -> None:
        came.append(number)
        if len(came) > 2:  # the jobs ended at the second one; the launcher has not noticed
            os._exit(128 + number)
        again = "once more ends them at once" if len(came) == 1 else "they end at once"
        with contextlib.suppress(OSError):  # a reader that is gone
            os.write(1, f"\n{signal.Signals(number).name}: the jobs end after their current steps; {again}\n".encode())

    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            if signal.sigtimedwait([signal.SIGINT], POLL_SECONDS):
                take(signal.SIGINT)

    before = signal.signal(signal.SIGINT, take)  # it comes to any thread that does not block it, or else to this one
    listener = threading.Thread(target=listen, daemon=True)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        from joblib.externals.loky.backend import resource_tracker  # takes a while to import

        for tracker in (multiprocessing.resource_tracker, resource_tracker):
            tracker.ensure_running()  # which would unblock it later
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        if hasattr(signal, "sigtimedwait"):  # not on macOS, where it is heard at the end
            listener.start()
    try:
        yield came
    finally:
        over.set()
        if listener.is_alive():
            listener.join()
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, before)


def run_in_worker(job: Callable[[], float | None]) -> float | None:
    """Runs ``job()`` in a launcher's worker process, which may run several jobs: after Ctrl-C, no further job begins.

    Ctrl-C must not end the process between jobs either, because joblib would then end all other jobs.

    Raises:
        StoppedJobError: instead of an exception that would end the launcher itself.
    """
    with contextlib.suppress(ValueError):  # not in the main thread, where signals do not arrive anyway
        signal.signal(signal.SIGINT, _take_in_worker)
    _busy.append("job")
    try:
        _block(False)
        if _stopped:
            raise StoppedJobError("")
        return job()
    except KeyboardInterrupt:
        raise StoppedJobError("") from None
    except InterruptedRunError as stopped:
        if stopped.signal != signal.SIGINT:
            raise
        _stopped.append(stopped.signal)
        raise StoppedJobError(str(stopped)) from None
    finally:
        _busy.clear()


def _take_in_worker(number: int, frame: FrameType | None) -> None:
    if _stopped and _busy:
        os._exit(128 + number)
    _stopped.append(number)
    if _busy:
        raise KeyboardInterrupt


class Signals:
    """Handles signals during a run; a context manager around the whole run.

    While `training`, the first signal is stored and handled at the end of the step; a second one ends the process at
    once. Outside the training loop there is no step to wait for: a signal raises `InterruptedRunError` at once, after
    the processes launched for other devices are killed. Those ignore the signal and leave this to rank 0: a rank that
    ended by itself would leave the others waiting inside C++, where no Python handler runs.

    Attributes:
        number: the received signal, or None.
        training: whether the training loop runs; set by its callers.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.training = False
        self._trainer: L.Trainer | None = None
        self._before: dict[int, Any] = {}

    def watch(self, trainer: "L.Trainer") -> None:
        """Keeps these handlers during ``trainer.fit``; Lightning's own SIGTERM handler ends a run with exit code 0."""
        self._trainer = trainer
        connector = trainer._signal_connector  # the only way: Lightning always puts its handlers before others
        register = connector.register_signal_handlers

        def registered() -> None:
            register()
            self._install()
            _block(False)

        connector.register_signal_handlers = registered  # type: ignore[method-assign]
        launcher: Any = trainer.strategy.launcher
        launch: Any = getattr(launcher, "_call_children_scripts", None)

        def launching() -> None:
            _block(True)  # the new processes begin so, until they have met
            try:
                launch()
            finally:
                _block(False)

        if launch is not None:
            launcher._call_children_scripts = launching

    def __enter__(self) -> "Signals":
        if _lost or _stopped:
            raise InterruptedRunError((_lost or _stopped).pop(), "")
        self._before = {number: signal.getsignal(number) for number in NUMBERS}
        self._install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)

    def _install(self) -> None:
        for number in NUMBERS:
            with contextlib.suppress(ValueError):  # not in the main thread, where signals do not arrive anyway
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self.number is None
        self.number = self.number or number
        if not self.training:
            if is_spawned_rank():
                return
            for process in self._children():
                process.kill()
                process.wait()
            raise InterruptedRunError(self.number, "")
        if not first:
            if slurm.job():
                return  # Slurm may say it several times, to several processes; it kills what takes too long
            self._abandon()
        with contextlib.suppress(OSError):  # print could meet itself here, and a reader that is gone
            again = "" if slurm.job() else "; once more to end at once"
            os.write(1, f"\n{signal.Signals(number).name}: the run ends after this step{again}\n".encode())

    def _abandon(self) -> None:
        """Kills this process and those that it has started."""
        for process in [*self._children(), *multiprocessing.active_children()]:
            process.kill()
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # the progress bar hides the cursor
        assert self.number is not None
        os._exit(128 + self.number)

    def _children(self) -> list[Any]:
        """The launched processes; hides them from Lightning, which would kill this process when one of them ends."""
        launcher = self._trainer.strategy.launcher if self._trainer else None
        processes: list[Any] = getattr(launcher, "procs", [])
        children = processes[:]
        processes.clear()
        return children


def _block(blocked: bool) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK if blocked else signal.SIG_UNBLOCK, NUMBERS)
