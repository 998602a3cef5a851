"""Ctrl-C and SIGTERM."""

import os
import signal
import subprocess
import sys
import time

import lightning as L
import pytest
import torch
from conftest import ROOT, SMALL, TINY, train_config

from ijepa import build, runs
from ijepa.errors import InterruptedRunError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_saved(tmp_path, invoke, number):
    folder = tmp_path / "run"
    arguments = ["data=digits", *TINY, "schedule.max_steps=100000", "data.workers=1", f"run_dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert output.splitlines()[-1] == f"run_dir {folder}"
    assert f"resume={folder}" in error
    assert error.count("\n") == 1
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < saved["global_step"] < 100000
    assert not (folder / "encoder.safetensors").exists()
    code, _, error = invoke("train.py", f"resume={folder}", "schedule.max_steps=5")
    assert code == 2


def test_ctrl_c_saves_a_run_whose_output_nobody_reads_any_more(tmp_path):
    """As in python train.py | tee log: tee ends first."""
    folder = tmp_path / "run"
    arguments = ["data=digits", *TINY, "schedule.max_steps=100000", "callbacks.progress_every_seconds=0.01"]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *arguments, f"run_dir={folder}"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    for line in process.stdout:
        if line.startswith("step "):
            break
    process.stdout.close()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130
    assert error.count("\n") == 1
    assert (folder / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_run_at_once(tmp_path, number):
    """Here in the middle of a step that takes minutes."""
    (tmp_path / "slow_source.py").write_text(
        "import time\n"
        "from ijepa.data.sources import Source, digits\n"
        "def build(data, seed):\n"
        "    found = digits(data, seed)\n"
        "    found.train.read = lambda index: print('reading', flush=True) or time.sleep(300)\n"
        "    return found\n"
    )
    arguments = ["data=digits", *TINY, "data.source=slow_source.build", f"run_dir={tmp_path / 'run'}"]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *arguments], stdout=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True)  # fmt: skip
    for line in process.stdout:
        if line == "reading\n":
            break
    process.send_signal(number)
    while "ends after this step" not in process.stdout.readline():
        pass
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number
    process.stdout.close()


class Sends(L.Callback):
    """A signal to this process in one of the trainer's hooks."""

    def __init__(self, hook, number):
        setattr(self, hook, lambda *_, **__: os.kill(os.getpid(), number))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["prepare", "setup", "on_fit_start", "on_train_start", "on_train_end", "results"])
def test_a_signal_before_and_after_the_steps(tmp_path, monkeypatch, place, number):
    """Lightning would exit with 1 or 0, or go on."""
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    folder = tmp_path / "run"
    folder.mkdir()
    run = build.run(train_config(*SMALL), folder)
    if place == "prepare":
        monkeypatch.setattr(run.data.source, "prepare", lambda: os.kill(os.getpid(), number))
    elif place == "results":
        monkeypatch.setattr(runs.tasks, "evaluate", lambda *_, **__: os.kill(os.getpid(), number))
    else:
        run.trainer.callbacks.insert(0, Sends(place, number))
    with pytest.raises(InterruptedRunError) as caught:
        runs.execute(run)
    assert caught.value.signal == number
    ended = place in ("on_train_end", "results")
    said = f"after step 4 of 4, before the results; go on with: python train.py resume={folder}"
    assert str(caught.value) == f"stopped {said if ended else 'before the first step'}"
    assert (folder / "checkpoints" / "last.ckpt").exists() == ended
    assert folder.exists() == (place != "prepare")
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_ctrl_c_at_the_start_is_no_traceback(tmp_path, script):
    """Whether it comes within the imports or later."""
    for delay in (0.1, 0.3, 0.6, 1.5):
        arguments = [sys.executable, str(ROOT / script), "data=digits", *TINY, f"run_dir={tmp_path / 'run'}"]
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert "Traceback" not in error
        assert process.returncode in (-signal.SIGINT, 130, 2)  # 2: evaluate.py had already said what is missing
