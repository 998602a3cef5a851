"""Slurm: information about the current job, and requeueing of jobs that are preempted or reach their time limit."""

import os
import shutil
import signal
import subprocess

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGUSR1") else ()
"""Signals of `sbatch --signal=USR1@120` and submitit ahead of the time limit: save and requeue."""


def job() -> str | None:
    """The ID of this process's Slurm job; None outside of a job and in an interactive shell."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarted() -> bool:
    """Whether Slurm has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue(number: int) -> bool:
    """Requeues this job after a signal has stopped it, unless the user cancelled it; to be called on one rank.

    Slurm itself would not requeue it: a preempted job that ends within its grace time counts as failed. On success,
    Slurm ends this process.

    Args:
        number: the signal. `WARNINGS` ask for requeueing; SIGTERM may be a preemption or the user's own scancel.
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
    """Whether Slurm is preempting the job."""
    told = _scontrol("show", "job", name) or ""
    fields = dict(item.partition("=")[::2] for item in told.split())
    return fields.get("PreemptTime", "None") not in ("None", "Unknown")


def _scontrol(*arguments: str) -> str | None:
    """The output of scontrol; None if it is not installed or fails."""
    program = shutil.which("scontrol")
    if program is None:
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None
