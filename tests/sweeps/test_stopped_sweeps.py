"""Ctrl-C in sweeps whose jobs run beside each other: all processes of the terminal get it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import DIGITS, ROOT, listed

pytestmark = pytest.mark.slow


def interrupted(arguments, ready):
    """Starts a sweep, and ends it as soon as it is ``ready()``; what it said, on both streams."""
    values = [*(item for item in DIGITS if "max_steps" not in item), "callbacks.log_every_steps=1", *arguments]
    process = subprocess.Popen([sys.executable, ROOT / "train.py", "-m", *values], start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 120
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, error
    assert error.splitlines()[-1] == "the same command resumes the sweep"
    assert "Traceback" not in error
    return said, error


def training(folder):
    """Jobs that have taken some steps."""
    return [path.parent for path in folder.glob("*/metrics.csv") if path.read_text().count("\n") > 4]


@pytest.mark.parametrize(
    ("launcher", "options", "jobs_at_once"), [("joblib", ["hydra.launcher.n_jobs=2"], 2), ("submitit_local", [], 3)]
)
def test_jobs_end_saved(launcher, options, jobs_at_once, tmp_path):
    """One that waits for its turn does not begin."""
    arguments = ["schedule.max_steps=100000", "seed=0,1,2", f"hydra/launcher={launcher}", *options]
    said, error = interrupted([*arguments, f"run_dir={tmp_path}"], lambda: len(training(tmp_path)) >= jobs_at_once)
    assert "SIGINT: the jobs end after their current steps; once more ends them at once" in said
    assert len([line for line in error.splitlines() if "resume with: python train.py resume=" in line]) == jobs_at_once
    states = [row["status"] for row in listed(tmp_path)]
    assert states == ["stopped"] * jobs_at_once + ["not begun"] * (3 - jobs_at_once)
    assert len(training(tmp_path)) == jobs_at_once
    for folder in training(tmp_path):
        assert (folder / "checkpoints" / "last.ckpt").exists()
    assert not subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False).stdout


def test_a_process_of_joblib_s_that_waits_for_work(tmp_path):
    """It must not end: joblib would take the job beside it down before that has saved."""
    short, long = (tmp_path / f"schedule.max_steps-{steps}" for steps in (1, 100000))
    arguments = ["schedule.max_steps=1,100000", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    interrupted([*arguments, f"run_dir={tmp_path}"],
                lambda: long in training(tmp_path) and (short / "summary.json").exists())  # fmt: skip
    assert (long / "checkpoints" / "last.ckpt").exists()
    assert [row["status"] for row in listed(tmp_path)] == ["finished", "stopped"]
