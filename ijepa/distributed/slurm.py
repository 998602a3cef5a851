"""Slurm: what it tells a job about itself, and how a job that has to make room gets back into the queue."""

import os
import shutil
import signal
import subprocess

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGUSR1") else ()
"""What `sbatch --signal=USR1@120` and submitit send ahead of the time limit: save, and come back."""


def job() -> str | None:
    """The number of the Slurm job that this process belongs to; None outside of one, and in an interactive shell."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarted() -> bool:
    """Whether Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue(number: int) -> bool:
    """Puts this job, which a signal has stopped, back into the queue where that was no end to it; on one rank.

    Slurm itself would not: a preempted job that saves and ends within its grace time counts as one that has failed.
    Where it succeeds, Slurm ends this process.

    Args:
        number: of the signal. One of `WARNINGS` asks for it; SIGTERM may be a preemption, or the user's own scancel.
    """
    name = job()
    if name is None or not (number in WARNINGS or (number == signal.SIGTERM and _preempted(name))):
        return False
    before = signal.getsignal(number)
    if callable(before) and before is not signal.default_int_handler:
        before(number, None)  # submitit's, which knows its job better, and ends the process
        return True
    return _scontrol("requeue", name) is not None


def _preempted(name: str) -> bool:
    """Whether Slurm wants the job's place."""
    told = _scontrol("show", "job", name) or ""
    fields = dict(item.partition("=")[::2] for item in told.split())
    return fields.get("PreemptTime", "None") not in ("None", "Unknown")


def _scontrol(*arguments: str) -> str | None:
    """What it prints; None where it cannot be had or refuses."""
    program = shutil.which("scontrol")
    if program is None:
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None
