"""Runs that are killed, get signals, or find the disk full, at any moment: resumed, they end as if nothing had been."""

import contextlib
import functools
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from helpers import ROOT, TINY

VALUES = ["data=digits", *(item for item in TINY if "max_steps" not in item), "schedule.max_steps=60",
          "data.batch_size=16", "callbacks.checkpoint_every_steps=5", "callbacks.log_every_steps=1",
          "callbacks.health_every_steps=20", "callbacks.health_images=16", "data.workers=1"]  # fmt: skip
LIMIT = 300
"""Seconds after which a process counts as hanging."""
LATEST = 12.0
"""Seconds until the last stop: start, training, results and export."""


def start(folder: Path, limit: int | None = None) -> subprocess.Popen[str]:
    """The run in ``folder``, begun or resumed; ``limit``: bytes that a file may have."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *VALUES, f"run_dir={folder}", "resume=auto"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limited, start_new_session=True,
    )  # fmt: skip


def finish(folder: Path) -> None:
    """Resumes the run to its end, and compares it with one that was never stopped."""
    _, error = start(folder).communicate(timeout=LIMIT)
    found, expected = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (folder, undisturbed())
    )
    assert found["global_step"] == expected["global_step"], error
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(tensor, found["state_dict"][name]), name
    assert (folder / "summary.json").exists(), error


@functools.cache
def undisturbed() -> Path:
    folder = Path(tempfile.mkdtemp()) / "run"
    _, error = start(folder).communicate(timeout=LIMIT)
    assert (folder / "summary.json").exists(), error
    return folder


def kill_case(seed: int, folder: Path) -> None:
    """SIGKILL for the whole group, once to three times."""
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 4)):
        process = start(folder / "run")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=float(rng.uniform(0.5, LATEST)))
        with contextlib.suppress(ProcessLookupError):
            signal_group(process, signal.SIGKILL)
        process.communicate(timeout=LIMIT)
    finish(folder / "run")


def signal_case(seed: int, folder: Path) -> None:
    """SIGTERM or SIGINT, for the process or its group: its own exit code, soon, and no traceback."""
    rng = np.random.default_rng(seed)
    number = signal.SIGTERM if rng.random() < 0.5 else signal.SIGINT
    process = start(folder / "run")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=float(rng.uniform(1.0, LATEST)))
    if process.poll() is None:
        signal_group(process, number) if rng.random() < 0.5 else process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (0, -number, 128 + number), (process.returncode, error)
    assert "Traceback" not in error, error
    finish(folder / "run")


def disk_case(seed: int, folder: Path) -> None:
    """Files that may not grow beyond a limit, as on a full disk: one line, and what was written before is complete."""
    rng = np.random.default_rng(seed)
    process = start(folder / "run", int(10 ** rng.uniform(3, 6)))
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode in (0, 2), (process.returncode, error)
    assert "Traceback" not in error, error
    finish(folder / "run")


def signal_group(process: "subprocess.Popen[str]", number: int) -> None:
    os.killpg(process.pid, number)
