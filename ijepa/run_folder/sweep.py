"""The names of the files in a sweep's folder, which contains a run's folder for each job."""

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
        """The swept keys and the jobs, see `ijepa.sweeps.jobs`."""
        return self.path / "sweep.json"

    @property
    def table(self) -> Path:
        """A table with a row per job, see `ijepa.sweeps.table`."""
        return self.path / "sweep.csv"

    @property
    def over_seeds(self) -> Path:
        """A table with a row per group of jobs that differ only in seed."""
        return self.path / "over_seeds.csv"
