"""Slurm: information about the current job, and requeueing of jobs that are preempted or reach their time limit."""

import os
import shutil
import signal
import subprocess

from ijepa.util.signals import SigtermHandler

WARNING_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGUSR1") else ()
"""Signals that `sbatch --signal=USR1@120` and submitit send before the time limit: save and requeue."""


def job_id() -> str | None:
    """The ID of this process's Slurm job; None outside a job and in an interactive shell."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def was_requeued() -> bool:
    """Whether Slurm has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue(number: int) -> bool:
    """Requeues this job after a signal has stopped it, unless the user cancelled it; call it on one rank only.

    Slurm itself would not: a preempted job that ends within its grace time counts as failed. If requeueing succeeds,
    Slurm ends this process, often before it can do anything more; so it is announced first.

    Args:
        number: the signal. `WARNING_SIGNALS` always requeue; SIGTERM does only if Slurm is preempting the job, because
            it may also be the user's scancel.

    Returns:
        Whether the job is requeued.
    """
    job = job_id()
    if job is None or not (number in WARNING_SIGNALS or (number == signal.SIGTERM and _preempted(job))):
        return False
    print("requeueing: the job resumes the run when Slurm restarts it", flush=True)
    previous = signal.getsignal(number)
    if callable(previous) and previous is not signal.default_int_handler and not isinstance(previous, SigtermHandler):
        previous(number, None)  # submitit's handler, which requeues its own job and ends the process
        return True
    if _scontrol("requeue", job) is not None:
        return True
    print(f"not requeued: scontrol requeue {job} failed", flush=True)
    return False


def _preempted(job: str) -> bool:
    """Whether Slurm is preempting ``job``."""
    output = _scontrol("show", "job", job) or ""
    fields = dict(item.partition("=")[::2] for item in output.split())
    return fields.get("PreemptTime", "None") not in ("None", "Unknown")


def _scontrol(*arguments: str) -> str | None:
    """The output of scontrol; None if it is not installed or fails."""
    program = shutil.which("scontrol")
    if program is None:
        return None
    result = subprocess.run([program, *arguments], capture_output=True, text=True)
    return result.stdout if result.returncode == 0 else None
