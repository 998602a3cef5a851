"""A sweep's folder: which jobs it has, and how far each one is."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ijepa.evaluation.specs import described
from ijepa.run_folder import RunFolder, SweepFolder
from ijepa.run_folder.summary import finished_summary
from ijepa.sweeps import metric
from ijepa.util.files import write_json
from ijepa.util.metric_spec import MetricSpec

FINISHED, FAILED, STOPPED, WAITING = "finished", "failed", "stopped", "not begun"


@dataclass
class Job:
    """A job of a sweep.

    Attributes:
        folder: of its run.
        values: what was swept, by key, as typed.
        error: why it failed, in a line; None where it did not.
    """

    folder: Path
    values: dict[str, str]
    error: str | None = None

    @property
    def name(self) -> str:
        """Its folder's."""
        return self.folder.name

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the run has written at its end."""
        return finished_summary(RunFolder(self.folder).summary)

    @property
    def status(self) -> str:
        """Whether it finished, failed, was stopped or did not begin."""
        if self.error is not None:
            return FAILED
        if self.summary is not None:
            return FINISHED
        return STOPPED if RunFolder(self.folder).config.exists() else WAITING


@dataclass
class Sweep:
    """What a sweep's folder says.

    Attributes:
        folder: it holds a folder for each job.
        command: the overrides that it was started with.
        keys: what is swept.
        metric: what runs are compared by; None: `metric.HEADLINE`.
        jobs: in order.
    """

    folder: Path
    command: list[str]
    keys: list[str]
    metric: str | None
    jobs: list[Job] = field(default_factory=list)

    @property
    def better(self) -> str:
        """Maximize or minimize."""
        return metric.direction(self.metric, self.outside)

    @property
    def outside(self) -> dict[str, MetricSpec]:
        """The metrics of tasks that do not come with this software, as the jobs describe them."""
        return described(*((job.summary or {}).get(metric.METRICS) for job in self.jobs))

    def ranked(self) -> list[tuple[Job, float | None]]:
        """Jobs with their values of the metric, the best first; those without one last."""
        valued = [(job, metric.value(self.metric, job.folder)) for job in self.jobs]
        sign = -1 if self.better == "maximize" else 1
        return sorted(valued, key=lambda pair: (pair[1] is None, sign * (pair[1] or 0.0)))

    def values(self, job: Job) -> dict[str, float]:
        """The results of a finished job, and its metric where that is none of them."""
        found = metric.results(job.summary or {})
        value = metric.value(self.metric, job.folder)
        return found if value is None else {metric.named(self.metric): value} | found

    def write(self) -> None:
        """Keeps it in the folder."""
        jobs = [{"folder": self._named(job), "values": job.values, "error": job.error} for job in self.jobs]
        known = {"command": self.command, "keys": self.keys, "metric": self.metric, "jobs": jobs}
        write_json(SweepFolder(self.folder).record, known)

    def _named(self, job: Job) -> str:
        """Its folder in the sweep's, which can be moved; that of a run from elsewhere, which goes on, in full."""
        return job.name if job.folder.parent == self.folder else str(job.folder)


def read(folder: Path) -> Sweep | None:
    """The sweep in ``folder``, or None where there is none; raises ValueError where its record is broken."""
    file = SweepFolder(folder).record
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_bytes())
        jobs = [Job(folder / str(job["folder"]), {str(key): str(value) for key, value in job["values"].items()},
                    job["error"]) for job in known["jobs"]]  # fmt: skip
        return Sweep(folder, [str(item) for item in known["command"]], [str(key) for key in known["keys"]],
                     known["metric"], jobs)  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"{file}: corrupt; run the sweep again, it skips finished jobs") from None
