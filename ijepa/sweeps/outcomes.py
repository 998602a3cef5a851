"""Outcomes of a sweep's jobs, as Hydra's `JobReturn`s: values, user errors and bugs."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ijepa.util.errors import UNWRITABLE, ConfigError, UserError


class SweepError(UserError):
    """Some jobs of a sweep failed; their errors are printed already. The exit code is 1 if one of them is a bug."""

    def __init__(self, results: Sequence[JobReturn]) -> None:
        failed = [result for result in results if result.status == JobStatus.FAILED]
        super().__init__(f"{len(failed)} of {len(results)} jobs failed")
        self.exit_code = UserError.exit_code if all(is_user_error(result) for result in failed) else 1


def result(overrides: Sequence[str], value: Any) -> JobReturn:
    """The outcome of a job; ``value``: its metric, or the error that ended it."""
    outcome = JobReturn(overrides=overrides)
    outcome.status = JobStatus.FAILED if isinstance(value, BaseException) else JobStatus.COMPLETED
    outcome.return_value = value
    return outcome


def submission_error(error: Exception) -> UserError | None:
    """The user error behind a failed submission to Slurm: rejected by sbatch, or no Slurm; None for other errors."""
    messages = [line.removeprefix("sbatch: ") for line in str(error).splitlines() if line.startswith("sbatch: ")]
    if type(error).__module__.startswith("submitit") and messages:
        return ConfigError("hydra/launcher", "submitit_slurm", f"sbatch rejects the job: {messages[-1]}")
    if isinstance(error, RuntimeError) and "slurm cluster" in str(error):
        return ConfigError("hydra/launcher", "submitit_slurm", "srun is not installed here; try submitit_local")
    return None


def is_user_error(job: JobReturn) -> bool:
    """Whether a job failed with an error that the user can fix, not a bug."""
    error = job._return_value
    unwritable = isinstance(error, OSError) and error.errno in UNWRITABLE
    return unwritable or isinstance(error, UserError | HydraException | OmegaConfBaseException)
