"""Ctrl-C and SIGTERM."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import preloaded
import pytest
import torch
from helpers import EXACT, ROOT, SMALL, TINY, assert_same, command, picture, rows, train_config

from ijepa.data.files import Files
from ijepa.distributed import devices
from ijepa.evaluation import tasks
from ijepa.run import build, finalize, predictions, runs
from ijepa.util.errors import InterruptedRunError
from ijepa.util.signals import ending_launched, launchers, stopping_on_sigterm

pytestmark = pytest.mark.slow


def started(*arguments, script="train.py", **environment):
    """A script in a process of its own."""
    return subprocess.Popen([preloaded.python(), str(ROOT / script), *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})  # fmt: skip


def wait_for_rows(folder, count=1):
    """Until metrics.csv has so many rows."""
    deadline = time.monotonic() + 120
    file = folder / "metrics.csv"
    while time.monotonic() < deadline and (not file.exists() or file.read_text().count("\n") <= count):
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_saved(tmp_path, invoke, number):
    folder = tmp_path / "run"
    process = started("data=digits", *TINY, "schedule.max_steps=100000", "data.workers=1", f"run_dir={folder}")
    wait_for_rows(folder, 3)
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


def test_a_run_that_signals_have_stopped_is_the_uninterrupted_one(tmp_path):
    """To the bit: weights, optimiser, the rows of metrics.csv but for the seconds."""
    values = ["data=digits", *TINY, "schedule.max_steps=120", "data.batch_size=16", "callbacks.log_every_steps=2"]
    assert command("train.py", *values, f"run_dir={tmp_path / 'whole'}").returncode == 0
    cut = tmp_path / "cut"
    process = started(*values, f"run_dir={cut}")
    wait_for_rows(cut, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert 0 < torch.load(cut / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 120
    result = command("train.py", f"resume={cut}")
    assert result.returncode == 0, result.stderr
    whole, resumed = (
        torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "cut")
    )
    assert_same(whole["state_dict"], resumed["state_dict"], **EXACT)
    states = [contents["optimizer_states"][0]["state"] for contents in (whole, resumed)]
    for name, state in states[0].items():
        assert_same(state, states[1][name], **EXACT)
    measured = ("seconds", "images_per_second")
    one, other = (
        [{k: v for k, v in row.items() if k not in measured} for row in rows(tmp_path / n)] for n in ("whole", "cut")
    )
    assert one == other


def test_ctrl_c_saves_a_run_whose_output_nobody_reads_any_more(tmp_path):
    """As in python train.py | tee log: tee ends first."""
    folder = tmp_path / "run"
    arguments = ["data=digits", *TINY, "schedule.max_steps=100000", "callbacks.progress_every_seconds=0.01"]
    process = started(*arguments, f"run_dir={folder}")
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
        "from ijepa.data.sources import digits\n"
        "def build(data, seed):\n"
        "    found = digits(data, seed)\n"
        "    found.train.read = lambda index: print('reading', flush=True) or time.sleep(300)\n"
        "    return found\n"
    )
    arguments = ["data=digits", *TINY, "data.source=slow_source.build", f"run_dir={tmp_path / 'run'}"]
    process = started(*arguments, PYTHONPATH=str(tmp_path))
    for line in process.stdout:
        if line == "reading\n":
            break
    process.send_signal(number)
    assert any("ends after this step" in line for line in process.stdout)
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
def test_a_signal_before_and_after_the_steps(tmp_path, monkeypatch, capsys, place, number):
    """Lightning would exit with 1 or 0, or go on."""
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    folder = tmp_path / "run"
    folder.mkdir()
    run = build.run(train_config(*SMALL), folder)
    if place == "prepare":
        monkeypatch.setattr(run.data.source, "prepare", lambda: os.kill(os.getpid(), number))
    elif place == "results":
        monkeypatch.setattr(finalize.tasks, "evaluate", lambda *_, **__: os.kill(os.getpid(), number))
    else:
        run.trainer.callbacks.insert(0, Sends(place, number))
    with pytest.raises(InterruptedRunError) as caught:
        runs.execute(run)
    assert caught.value.signal == number
    ended = place in ("on_train_end", "results")
    said = f"after step 4 of 4, before the results; resume with: python train.py resume={folder}"
    assert str(caught.value) == f"stopped {said if ended else 'before the first step'}"
    assert (folder / "checkpoints" / "last.ckpt").exists() == ended
    assert folder.exists() == (place != "prepare")
    assert capsys.readouterr().out.count(f"run_dir {folder}") == 1 + folder.exists()  # no path to what is deleted
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize(("variables", "code"), [({}, 143), ({"LOCAL_RANK": "1"}, 0),
                                                 ({"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "1"}, 143)])  # fmt: skip
def test_exit_codes_of_other_processes(invoke, monkeypatch, variables, code):
    """Lightning's launcher kills the first process when another one fails."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    def interrupted(composed):
        raise InterruptedRunError(signal.SIGTERM, "")

    monkeypatch.setattr(runs, "train", interrupted)
    assert invoke("train.py", "data=digits", *TINY)[0] == code


def test_a_ctrl_c_that_something_swallows_is_not_lost(tmp_path, invoke, monkeypatch):
    """As a library may while it is imported, or a destructor."""
    make = build.run

    def swallowing(*arguments):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        return make(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(build, "run", swallowing)
        code, _, error = invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path / 'run'}")
    assert (code, error) == (130, "stopped before the first step\n")
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={tmp_path / 'other'}")[0] == 0


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_ctrl_c_at_the_start_is_no_traceback(tmp_path, script):
    """Whether it comes within the imports or later; and it does not get lost."""
    for delay in (0.1, 0.3, 0.6, 1, 1.5, 2):
        values = [*TINY, "schedule.max_steps=100000", f"run_dir={tmp_path / str(delay)}"]
        process = subprocess.Popen([sys.executable, str(ROOT / script), "data=digits", *values],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()  # one that has missed the signal would train on beside the other tests
        if "init_import_site" in error:
            continue  # Python itself had not begun
        assert "Traceback" not in error
        assert process.returncode in (-signal.SIGINT, 130, 2)  # 2: evaluate.py had already said what is missing


def test_an_error_while_processes_are_started_ends_those_that_are(monkeypatch):
    """As a signal while they wait for each other."""
    fabric = devices.fabric(train_config("hardware=ddp", "hardware.accelerator=cpu").hardware)
    process = subprocess.Popen(["sleep", "300"])

    def launch():
        fabric.strategy.launcher.procs = [process]
        raise KeyboardInterrupt

    monkeypatch.setattr(fabric, "launch", launch)
    with pytest.raises(KeyboardInterrupt), devices.launching(fabric):
        pass
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_a_second_sigterm_ends_an_evaluation_on_two_devices(tmp_path, invoke):
    """Here while what the first has interrupted cleans up, for minutes."""
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={folder}")[0] == 0
    (tmp_path / "slow_cleaning.py").write_text(
        "import os, time\n"
        "from ijepa.data.sources import digits\n"
        "def build(data, seed):\n"
        "    found = digits(data, seed)\n"
        "    def read(index):\n"
        "        try:\n"
        "            print('reading', os.environ.get('LOCAL_RANK', '0'), os.getpid(), flush=True)\n"
        "            time.sleep(300)\n"
        "        finally:\n"
        "            print('cleaning', flush=True)\n"
        "            time.sleep(300)\n"
        "    found.train.read = read\n"
        "    return found\n"
    )
    values = [f"checkpoint={folder}", "task=knn", "data=digits", "data.source=slow_cleaning.build", "data.workers=0",
              "hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2", "trust=slow_cleaning"]  # fmt: skip
    process = started(*values, script="evaluate.py", PYTHONPATH=str(tmp_path), CUDA_VISIBLE_DEVICES="")
    said = iter(process.stdout.readline, "")
    readers = dict(next(line for line in said if line.startswith("reading")).split()[1:] for _ in range(2))
    process.send_signal(signal.SIGTERM)
    assert any("cleaning" in line for line in said)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    process.stdout.close()
    deadline = time.monotonic() + 10
    while Path("/proc", readers["1"]).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_signal_that_comes_twice_at_once_is_one(tmp_path):
    """As from `timeout`: to the process, and to its group."""
    folder = tmp_path / "run"
    process = started("data=digits", *TINY, "schedule.max_steps=100000", f"run_dir={folder}")
    wait_for_rows(folder, 3)
    for _ in range(20):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"resume={folder}" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_evaluation_with_a_line(tmp_path, invoke, monkeypatch, number):
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={folder}")[0] == 0
    monkeypatch.setattr(tasks, "baselines", lambda *_, **__: os.kill(os.getpid(), number))
    code, output, error = invoke("evaluate.py", f"checkpoint={folder}", "task=knn", f"cache={tmp_path / 'cache'}")
    written = folder / "evaluation" / "knn" / "metrics.json"
    assert (code, error) == (128 + number, "interrupted\n" if number == signal.SIGINT else "stopped by SIGTERM\n")
    assert output.splitlines()[-1] == f"stopped before {written} was written; the same command begins again"
    assert not written.exists()


def test_sigterm_keeps_the_predictions_so_far(tmp_path, invoke, monkeypatch):
    """As Ctrl-C does: the same command resumes."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(6):
        picture(index, 8, 8).save(images / f"{index}.png")
    folder = tmp_path / "run"
    assert invoke("train.py", "data=digits", *TINY, f"run_dir={folder}")[0] == 0
    assert invoke("evaluate.py", f"checkpoint={folder}", "task=logistic", "baselines=false")[0] == 0
    arguments = [f"checkpoint={folder}", f"data.root={images}", "data.batch_size=1", "data.workers=0",
                 f"output={tmp_path / 'p.csv'}"]  # fmt: skip
    monkeypatch.setattr(predictions, "CHUNK", 1)
    read = Files.read

    def reading(self, index):
        if index == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Files, "read", reading)
        code, output, error = invoke("predict.py", *arguments)
    assert (code, error) == (143, "stopped by SIGTERM\n")
    assert "stopped after 4 of 6 images; the same command resumes" in output
    code, output, _ = invoke("predict.py", *arguments)
    assert code == 0
    assert "resumes  after 4 images" in output


def test_launched_processes_end_with_a_run_that_fails():
    """Also after a second trainer: only that of the first has launched them (a run that trains its teacher first)."""
    quick, stuck = (subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({s})"]) for s in (0, 60))
    launchers.extend([SimpleNamespace(procs=[quick, stuck]), SimpleNamespace(procs=[])])
    with pytest.raises(RuntimeError), ending_launched(patience=3):
        raise RuntimeError
    assert quick.wait(timeout=10) == 0  # it had the time to end by itself
    assert stuck.wait(timeout=10) == -signal.SIGKILL
    assert launchers == []


def test_an_error_that_other_code_makes_of_a_signal_is_the_signal():
    """As the readers of weights do: whatever happens while they read is a broken file to them."""

    def read():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Exception:
            raise ValueError("could not determine the shape") from None

    with pytest.raises(InterruptedRunError) as caught, stopping_on_sigterm():
        read()
    assert caught.value.signal == signal.SIGTERM
    with pytest.raises(ValueError, match="of its own"), stopping_on_sigterm():
        raise ValueError("of its own")
