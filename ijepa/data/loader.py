"""Batches from data loader processes that may crash, hang, or run out of shared memory."""

import atexit
import contextlib
import itertools
import multiprocessing
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ijepa.data import workers
from ijepa.data.handover import Handover, NotHandedOver, Watched
from ijepa.util.errors import UserError

POLL_SECONDS = 1
"""Interval of the checks on the processes while the loader waits for a batch."""
TIMEOUT = 60.0
"""Where no configuration gives data.worker_timeout, as for rendering scenes."""
CRASHES = 2
"""Crashes at the same file after which it counts as unreadable: a first may have another cause."""
END = object()
LOST = 3
"""Processes that die in a row, no file being to blame and no batch between them, before the run ends."""


class Loader:
    """The batches of a data set, in order, like torch's DataLoader, from supervised processes.

    - A process that dies is replaced, and what it had to read is read again: batches are the same. A file at which
      processes crash twice is unreadable from then on.
    - A process that takes long is waited for, and the file that it reads is named.
    - If a process cannot hand over its batch, because shared memory is full or for another reason, the run ends.

    Args:
        dataset: items by key.
        batches: the keys of each batch.
        workers: processes; 0: items are read in this one.
        collate: makes a batch of items; None: torch's default.
        timeout: seconds without progress after which the loader prints what processes read, or gives up.
        stop: asked while the loader waits; true: there are no further batches.
        pin_memory: see DataLoader.

    Attributes:
        waited: seconds that its user has waited for batches, but for the first, before which processes start.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: Iterable[Sequence[Any]],
        workers: int,
        collate: Callable[[list[Any]], Any] | None = None,
        timeout: float = TIMEOUT,
        stop: Callable[[], bool] = lambda: False,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batches: Iterable[Any] = batches  # keys need not be int, as torch says
        self.workers = workers
        self.collate = collate or default_collate
        self.timeout = timeout
        self.stop = stop
        self.pin_memory = pin_memory
        self.waited = 0.0

    def __len__(self) -> int:
        """The number of batches, if ``batches`` has a length."""
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """The batches.

        Raises:
            UserError: when shared memory is full, or processes die or stop and no file is to blame.
        """
        with contextlib.closing(self._batches()) as batches:
            yield from itertools.islice(batches, 1)
            while True:
                asked = time.perf_counter()
                batch = next(batches, END)
                self.waited += time.perf_counter() - asked
                if batch is END:
                    return
                yield batch

    def _batches(self) -> Generator[Any, None, None]:
        if not self.workers:
            yield from DataLoader(
                self.dataset,
                batch_sampler=self.batches,
                collate_fn=self.collate,
                pin_memory=self.pin_memory,  # type: ignore[arg-type]  # keys need not be int
            )
            return
        source, pending = iter(self.batches), deque[Sequence[Any]]()  # pending: begun by processes, not received

        def remaining() -> Iterator[Sequence[Any]]:
            yield from list(pending)
            for keys in source:
                pending.append(keys)
                yield keys

        crashes = Counter[str]()
        while True:
            processes = _Processes(self, remaining())
            try:
                for batch in processes:
                    pending.popleft()
                    del crashes[""]
                    yield batch
                return
            except _DiedError as died:
                died.blame(crashes, self.workers)
            finally:
                processes.end()


def batched(count: int, size: int) -> list[range]:
    """The indices of ``count`` items in batches of ``size``, of which the last may be smaller."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class _Processes:
    """One set of data loader processes; iterates over their batches."""

    def __init__(self, loader: Loader, batches: Iterator[Sequence[Any]]) -> None:
        self._loader = loader
        self._slots = workers.new_slots(loader.workers)
        self._watches = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
        self._receiving = False
        others = multiprocessing.active_children()
        torch_loader: DataLoader[Any] = DataLoader(
            Watched(loader.dataset),
            batch_sampler=batches,  # type: ignore[arg-type]  # keys need not be int
            num_workers=loader.workers,
            collate_fn=Handover(loader.collate),
            pin_memory=loader.pin_memory,
            timeout=POLL_SECONDS,
            worker_init_fn=partial(workers.start_worker, slots=self._slots, known=dict(workers.crashing)),
        )
        with workers.signals_blocked(), _no_handler_of_torch():
            self._batches = iter(torch_loader)
        self._children = [child for child in multiprocessing.active_children() if child not in others]
        atexit.register(self._kill)  # before multiprocessing waits for processes that ignore SIGTERM

    def __iter__(self) -> Iterator[Any]:
        seen, since, begun = self._progress(), time.monotonic(), time.monotonic()
        while True:
            try:
                batch = self._receive()
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:  # the last two: it died as it handed over a batch
                self._check(error)
            else:
                if isinstance(batch, NotHandedOver):
                    raise UserError(f"data.workers={self._loader.workers}: {batch.problem}")
                yield batch
                seen, since, begun = self._progress(), time.monotonic(), time.monotonic()
                continue
            if self._loader.stop():
                return
            now = time.monotonic()
            if seen != self._progress():
                seen, since = self._progress(), now
            elif now - since >= self._loader.timeout:
                self._explain(now - begun)
                since = now

    def end(self) -> None:
        """Ends the processes, those that still read at once.

        torch ends the others, unless the traceback of an error keeps its loader.
        """
        busy = {slot.pid for slot in self._slots if slot.turns % 2}
        for child in self._children:
            if child.pid in busy:
                child.kill()
        del self._batches
        self._kill()
        atexit.unregister(self._kill)

    def _kill(self) -> None:
        for child in self._children:
            child.kill()

    def _receive(self) -> Any:
        """The next batch; a process that dies meanwhile raises `_DiedError`.

        At once, not only after `POLL_SECONDS`: if a process dies while it writes a large batch, reading the rest would
        block forever. torch's own handler of SIGCHLD raises wherever the main process is, as in a training step.
        """
        if not self._watches:
            return next(self._batches)

        def on_child(number: int, frame: Any) -> None:
            if self._receiving and self._dead():
                self._receiving = False
                raise _DiedError(self._dead())

        before = signal.signal(signal.SIGCHLD, on_child)
        try:
            self._receiving = True
            if self._dead():
                raise _DiedError(self._dead())
            return next(self._batches)
        finally:
            self._receiving = False
            signal.signal(signal.SIGCHLD, before)

    def _dead(self, also: str = "") -> list[tuple[str, int]]:
        """What each process that has died was reading, and its exit code; those that have ended as usual only if
        their number is in the text ``also``.
        """
        files = {slot.pid: slot.file.decode(errors="surrogateescape") for slot in self._slots}
        codes = {child.pid: child.exitcode for child in self._children if child.exitcode is not None}
        return [(files.get(pid, ""), code) for pid, code in codes.items() if code or str(pid) in also]

    def _progress(self) -> list[tuple[int, bytes]]:
        return [(slot.turns, slot.file) for slot in self._slots]

    def _check(self, error: Exception) -> None:
        """Returns if torch's loader only had to wait; raises `_DiedError` if a process has died, else ``error``."""
        if "DataLoader timed out" in str(error):
            return
        until = time.monotonic() + POLL_SECONDS
        while not (dead := self._dead(str(error))):
            if time.monotonic() > until:
                raise error
            time.sleep(0.01)  # until its exit code is known
        raise _DiedError(dead) from None

    def _explain(self, seconds: float) -> None:
        """Prints what is waited for; raises UserError if no process does anything."""
        if all(slot.pid and slot.turns % 2 == 0 for slot in self._slots):  # no pid: it is still starting
            problem = f"no batch for {seconds:.0f} s, and no data loader process is at work"
            raise UserError(f"data.workers={self._loader.workers}: {problem}; try 0, or fewer")
        files = [slot.file.decode(errors="surrogateescape") for slot in self._slots if slot.file]
        print(f"waiting  {seconds:.0f} s for data: {', '.join(files) or 'images'}", flush=True)


class _DiedError(Exception):
    """Processes have died: the file that each was reading, or "", and its exit code."""

    def __init__(self, dead: list[tuple[str, int]]) -> None:
        super().__init__(dead)
        self.dead = dead

    def blame(self, crashes: Counter[str], count: int) -> None:
        """Counts the crashes by file, and makes a file unreadable that is the cause; prints what happened.

        Raises:
            UserError: when the cause is none of the files.
        """
        suspects = ["" if code == -signal.SIGKILL else file for file, code in self.dead]  # killed from outside: no file
        crashes.update(set(suspects))
        for (file, code), suspect in zip(self.dead, suspects, strict=True):
            how = _reason(code)
            where = f" while reading {file}" if file else ""
            if not suspect and crashes[suspect] >= LOST:
                problem = f"data loader processes die again and again ({how}){where}"
                raise UserError(f"data.workers={count}: {problem}; try fewer, or a smaller data.batch_size")
            if suspect and crashes[suspect] >= CRASHES:
                workers.crashing[file] = f"the process that reads it dies: {how}"
            else:
                print(f"a data loader process died{where} ({how}); another reads the same again", flush=True)


@contextlib.contextmanager
def _no_handler_of_torch() -> Iterator[None]:
    """A DataLoader that starts here installs no handler of SIGCHLD; later ones do as before.

    torch's raises in the main thread, wherever it is, also for a process of an earlier loader that ends meanwhile.
    """
    signal_handling = torch.utils.data._utils.signal_handling
    before = signal_handling._SIGCHLD_handler_set
    signal_handling._SIGCHLD_handler_set = True
    try:
        yield
    finally:
        signal_handling._SIGCHLD_handler_set = before


def _reason(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    guesses = {
        "SIGKILL": ": out of memory?",
        "SIGBUS": ": is shared memory full, as in a container without --shm-size?",
    }
    return name + guesses.get(name, "")
