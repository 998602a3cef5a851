"""What has become of the jobs of a sweep, as Hydra's launchers tell it, and whose fault it is."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ijepa.util.errors import UNWRITABLE, ConfigError, UserError


class SweepError(UserError):
    """Some jobs of a sweep failed; what was wrong with each has been said. Faults of the software exit with 1."""

    def __init__(self, results: Sequence[JobReturn]) -> None:
        failed = [result for result in results if result.status == JobStatus.FAILED]
        super().__init__(f"{len(failed)} of {len(results)} jobs failed")
        self.exit_code = UserError.exit_code if all(mendable(result) for result in failed) else 1


def result(overrides: Sequence[str], value: Any) -> JobReturn:
    """That of a job, by the value of its metric or its error."""
    found = JobReturn(overrides=overrides)
    found.status = JobStatus.FAILED if isinstance(value, BaseException) else JobStatus.COMPLETED
    found.return_value = value
    return found


def unqueued(error: Exception) -> UserError | None:
    """What Slurm had against jobs that submitit brought, or that there is none."""
    found = [line.removeprefix("sbatch: ") for line in str(error).splitlines() if line.startswith("sbatch: ")]
    if type(error).__module__.startswith("submitit") and found:
        return ConfigError("hydra/launcher", "submitit_slurm", f"sbatch rejects the job: {found[-1]}")
    if isinstance(error, RuntimeError) and "slurm cluster" in str(error):
        return ConfigError("hydra/launcher", "submitit_slurm", "srun is not installed here; try submitit_local")
    return None


def mendable(job: JobReturn) -> bool:
    """Whether the user can mend what was wrong, and not the software alone."""
    fault = job._return_value
    full = isinstance(fault, OSError) and fault.errno in UNWRITABLE
    return full or isinstance(fault, UserError | HydraException | OmegaConfBaseException)
