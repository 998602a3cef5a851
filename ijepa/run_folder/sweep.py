"""The names in a sweep's folder, which holds a run's folder for each job."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's folder.

    Attributes:
        path: of the folder, which may not exist yet.
    """

    path: Path

    @property
    def record(self) -> Path:
        """Its jobs, and what was swept, see `ijepa.sweeps.jobs`."""
        return self.path / "sweep.json"

    @property
    def table(self) -> Path:
        """A row for each job, see `ijepa.sweeps.table`."""
        return self.path / "sweep.csv"

    @property
    def over_seeds(self) -> Path:
        """A row for all jobs that differ by seed alone."""
        return self.path / "over_seeds.csv"
