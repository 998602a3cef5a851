"""Data loader processes that die, hang, or run out of shared memory."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from helpers import EXACT, ROOT, TINY, assert_same, train_config
from torch.utils.data import Dataset

from ijepa.data import files, workers
from ijepa.data.loader import Loader, batched
from ijepa.run import build, runs
from ijepa.util.errors import InterruptedRunError, UserError

pytestmark = pytest.mark.integration


class Numbers(Dataset):
    """Numbers from files of these names; a process does ``fault`` at the file called "bad"."""

    def __init__(self, names, fault=lambda: None, folder=None):
        self.names, self.fault, self.folder = names, fault, folder

    def __getitem__(self, index):
        name = self.names[index]
        try:
            with workers.reading(name):
                if name == "bad" and torch.utils.data.get_worker_info():
                    self.fault()
                return index
        except OSError:
            return -1


class Arrays(Dataset):
    """Arrays that are handed over through a pipe."""

    def __getitem__(self, index):
        return np.zeros(2**20)


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(workers, "crashing", {})


def names(bad, count=12):
    return ["bad" if index == bad else f"file {index}" for index in range(count)]


def die():
    os.kill(os.getpid(), signal.SIGSEGV)


def once(path):
    """Kills the process, but only the first that comes here."""

    def fault():
        if not path.exists():
            path.touch()
            die()

    return fault


def values(loader):
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_batches_are_those_of_torch_in_order(count):
    loader = Loader(Numbers(names(None, 10)), batched(10, 4), count)
    assert len(loader) == 3
    assert values(loader) == values(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("bad", [0, 5, 11])
def test_a_file_at_which_processes_crash_is_unreadable_from_then_on(bad, capsys):
    found = values(Loader(Numbers(names(bad), die), batched(12, 2), 2))
    assert [index for batch in found for index in batch] == [-1 if index == bad else index for index in range(12)]
    assert workers.crashing == {"bad": "the process that reads it dies: SIGSEGV"}
    assert capsys.readouterr().out == (
        "a data loader process died while reading bad (SIGSEGV); another reads the same again\n"
    )
    with pytest.raises(OSError, match="SIGSEGV"), workers.reading("bad"):
        pass


def test_a_process_that_dies_once_changes_nothing(tmp_path):
    found = values(Loader(Numbers(names(5), once(tmp_path / "died")), batched(12, 2), 2))
    assert found == [[2 * batch, 2 * batch + 1] for batch in range(6)]
    assert (tmp_path / "died").exists()
    assert not workers.crashing


def test_processes_that_are_killed_end_the_run_and_blame_no_file():
    fault = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    with pytest.raises(UserError) as caught:
        values(Loader(Numbers(names(4), fault), batched(12, 2), 2))
    expected = "data.workers=2: data loader processes die again and again (SIGKILL: out of memory?) while reading bad"
    assert str(caught.value) == f"{expected}; try fewer, or a smaller data.batch_size"
    assert not workers.crashing


def test_a_signal_of_a_process_s_death_does_not_disturb_what_runs_meanwhile():
    """torch's handler would raise wherever the main process is."""
    before = signal.getsignal(signal.SIGCHLD)
    loader = iter(Loader(Numbers(names(7), die), batched(12, 2), 1))
    assert next(loader).tolist() == [0, 1]
    time.sleep(1)  # the process dies here
    assert [batch.tolist() for batch in loader][2] == [6, -1]
    assert signal.getsignal(signal.SIGCHLD) is before


def test_no_handler_of_torch_raises_in_the_main_process_not_even_for_a_moment(monkeypatch):
    set_signal, handlers = signal.signal, []
    monkeypatch.setattr(
        signal, "signal", lambda number, handler: handlers.append((number, handler)) or set_signal(number, handler)
    )
    values(Loader(Numbers(names(None)), batched(4, 2), workers=1))
    modules = [getattr(handler, "__module__", "") for number, handler in handlers if number == signal.SIGCHLD]
    assert modules
    assert not [module for module in modules if str(module).startswith("torch")]


def test_a_process_that_takes_long_is_named_and_waited_for(capsys):
    found = values(Loader(Numbers(names(2), lambda: time.sleep(5)), batched(6, 2), 1, timeout=2))
    assert found == [[0, 1], [2, 3], [4, 5]]
    assert "s for data: bad\n" in capsys.readouterr().out


def test_the_wait_can_be_ended():
    stopping = threading.Event()
    loader = Loader(Numbers(names(2), lambda: time.sleep(60)), batched(6, 2), 1, stop=stopping.is_set)
    threading.Timer(2, stopping.set).start()
    begun = time.monotonic()
    assert values(loader) == [[0, 1]]
    assert time.monotonic() - begun < 10


def test_processes_that_do_nothing_end_the_run(monkeypatch):
    class Lost:
        def __reduce__(self):
            raise ValueError("in the thread that hands batches over")

    monkeypatch.setattr("ijepa.data.handover.tree_leaves", lambda batch: [])
    loader = Loader(Numbers(names(None)), batched(6, 2), 1, collate=lambda items: Lost(), timeout=2)
    with pytest.raises(UserError, match=r"data.workers=1: no batch for \d s, and no data loader process is at work"):
        values(loader)


def test_a_process_that_dies_as_it_writes_a_large_batch_is_noticed():
    """Its message is cut off, and the rest never comes."""
    loader = iter(Loader(Arrays(), batched(8, 4), 1, collate=list))
    time.sleep(2)  # the first batch fills the pipe

    def kill():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    first = threading.Thread(target=lambda: (time.sleep(1.5), kill()))
    first.start()
    sizes = [len(batch) for batch in loader]
    first.join()
    assert sizes == [4, 4]


def test_a_process_that_ends_by_itself_is_replaced():
    found = values(Loader(Numbers(names(3), lambda: os._exit(0)), batched(6, 2), 1))
    assert found == [[0, 1], [2, -1], [4, 5]]


def test_an_unfinished_loader_does_not_keep_the_interpreter():
    code = ("import time\nfrom ijepa.data.loader import Loader, batched\nclass D:\n"
            "    def __getitem__(self, i):\n        time.sleep(100 * (i > 1)); return i\n"
            "it = iter(Loader(D(), batched(9, 2), 1)); print(next(it))\n")  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.stdout == "tensor([0, 1])\n", result.stderr


def test_errors_of_items_are_the_caller_s():
    def fault():
        raise ZeroDivisionError("of an item")

    with pytest.raises(ZeroDivisionError, match="of an item"):
        values(Loader(Numbers(names(2), fault), batched(6, 2), 2))


def test_a_batch_larger_than_a_file_may_be(monkeypatch):
    def share(self):
        raise RuntimeError("unable to resize file </torch_1_2_0> to the right size: File too large (27)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", share)
    with pytest.raises(UserError, match=r"^data.workers=1: a batch is larger than a file may be; try 0, or raise ul"):
        values(Loader(Numbers(names(None)), batched(4, 2), workers=1))


HOLDS_THE_ERROR = """
from ijepa.data.loader import Loader, batched
class Wrong:
    def __getitem__(self, index):
        raise ValueError("mine")
try:
    list(Loader(Wrong(), batched(4, 2), workers=2))
except ValueError as error:
    held = error.__traceback__  # as by the interpreter that prints it
print("ended", flush=True)
"""


def test_an_error_of_an_item_does_not_keep_the_interpreter():
    command = [sys.executable, "-c", HOLDS_THE_ERROR]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.stdout == "ended\n", result.stderr


BAD = "train/cold/train-3.png"


@pytest.fixture
def images(pictures, tmp_path):
    return ("data=folder", f"data.root={pictures}", "data.image_size=[16,24]", "model.patch_size=4",
            "data.batch_size=4", "schedule.max_steps=8", *(text for text in TINY if "max_steps" not in text),
            "data.workers=1", "callbacks.checkpoint_every_steps=null")  # fmt: skip


def trained(images, folder, monkeypatch, fault):
    """A run in which ``fault`` happens as a process reads one of the images."""
    decode = files.decode

    def faulty(path, *arguments):
        if path.endswith(BAD):
            fault()
        return decode(path, *arguments)

    monkeypatch.setattr(files, "decode", faulty)
    run = build.run(train_config(*images), folder)
    return run


def test_a_run_with_a_file_that_crashes_its_decoder(images, tmp_path, monkeypatch):
    """Is the same as one in which that file is damaged."""

    def damaged():
        raise ValueError("damaged")

    states, reasons = [], []
    for name, fault in (("crash", die), ("damaged", damaged)):
        run = trained(images, tmp_path / name, monkeypatch, fault)
        run.trainer.fit(run.module, run.data)
        (found,) = run.recorder.unreadable
        file, _, reason = found.partition(" ")
        assert file.endswith(BAD)
        reasons.append(reason)
        states.append(run.module.state_dict())
        monkeypatch.undo()
    assert reasons == ["(the process that reads it dies: SIGSEGV)", "(damaged)"]
    assert_same(*states, **EXACT)


def test_a_signal_while_the_run_waits_for_an_image(images, tmp_path, monkeypatch):
    main = os.getpid()

    def slow():
        time.sleep(3)  # the run waits by then
        os.kill(main, signal.SIGTERM)
        time.sleep(100)

    run = trained(images, tmp_path / "run", monkeypatch, slow)
    begun = time.monotonic()
    with pytest.raises(InterruptedRunError, match=r"stopped after step \d of 8; resume with"):
        runs.execute(run)
    assert time.monotonic() - begun < 60
    assert run.trainer.global_step < 8
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_signals_to_all_processes_do_not_reach_those_that_read():
    """Also in the moment in which they start: handlers are those of the main process until then."""
    received = []
    before = {number: signal.signal(number, lambda *_: received.append(os.getpid()))
              for number in (signal.SIGTERM, signal.SIGUSR1)}  # fmt: skip
    try:
        loader = iter(Loader(Numbers(names(None)), batched(12, 1), 2))
        group = lambda: [os.kill(child.pid, number) for child in multiprocessing.active_children() for number in before]  # noqa: E731
        timer = threading.Timer(0.0, group)
        timer.start()
        found = [next(loader).tolist()]
        group()
        assert [*found, *(batch.tolist() for batch in loader)] == [[index] for index in range(12)]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not received
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


SMALL_MEMORY = "mount -t tmpfs -o size=2m tmpfs /dev/shm && exec "


def can_mount():
    attempt = ["unshare", "-m", "sh", "-c", SMALL_MEMORY + "true"]
    return shutil.which("unshare") and not subprocess.run(attempt, capture_output=True).returncode


@pytest.mark.slow
def test_shared_memory_that_is_full(tmp_path):
    """As in a container of 64 MB; the first batch already finds no room, or a later one."""
    if not can_mount():
        pytest.skip("needs the right to mount a file system")
    script = ROOT / "train.py"
    arguments = "data=scenes data.scenes.train=64 data.scenes.val=16 data.scenes.cache=CACHE data.workers=2 "
    arguments += "data.batch_size=64 schedule.max_steps=20 schedule.warmup_steps=1 hardware=cpu task=knn run_dir=RUN"
    arguments = arguments.replace("CACHE", str(tmp_path / "cache")).replace("RUN", str(tmp_path / "run"))
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{SMALL_MEMORY} {sys.executable} {script} {arguments}"],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    if "Unexpected bus error" in result.stderr:  # of torch 2.9, which does not ask for the memory in advance
        assert "error: data.workers=2: data loader processes die again and again (SIGBUS: is shared" in result.stderr
        return
    assert "error: data.workers=2: shared memory is full (" in result.stderr
    assert "of 2 MiB of /dev/shm are free); try 0, or give the container more: --shm-size=8g" in result.stderr
    assert result.stderr.count("\n") == 1
