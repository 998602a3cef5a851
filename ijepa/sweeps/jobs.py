"""The record of a sweep: its jobs and their status, stored in sweep.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ijepa.evaluation.specs import parse_custom_specs
from ijepa.run_folder import RunFolder, SweepFolder
from ijepa.run_folder.summary import finished_summary
from ijepa.sweeps import metric
from ijepa.util.files import write_json
from ijepa.util.metric_spec import MetricSpec
from ijepa.util.reading import read_json

FINISHED, FAILED, STOPPED, WAITING = "finished", "failed", "stopped", "not begun"


@dataclass
class Job:
    """A job of a sweep.

    Attributes:
        folder: of the job's run.
        values: the swept values, by key, as typed.
        error: why the job failed, one line; None: it did not fail.
    """

    folder: Path
    values: dict[str, str]
    error: str | None = None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of the finished run; None: not finished."""
        return finished_summary(RunFolder(self.folder).summary)

    @property
    def status(self) -> str:
        """`FINISHED`, `FAILED`, `STOPPED` or `WAITING`."""
        if self.error is not None:
            return FAILED
        if self.summary is not None:
            return FINISHED
        return STOPPED if RunFolder(self.folder).config.exists() else WAITING


@dataclass
class Sweep:
    """A sweep.

    Attributes:
        folder: contains a run's folder for each job.
        command: the overrides of the command line.
        keys: the keys that are swept.
        metric: the metric that jobs are compared by; None: `metric.HEADLINE`.
        jobs: in the order in which they were started.
    """

    folder: Path
    command: list[str]
    keys: list[str]
    metric: str | None
    jobs: list[Job] = field(default_factory=list)

    @property
    def direction(self) -> str:
        """``maximize`` or ``minimize``, see `metric.direction`."""
        return metric.direction(self.metric, self.custom_specs)

    @property
    def custom_specs(self) -> dict[str, MetricSpec]:
        """Specs of the metrics of the user's own tasks, from the jobs' summaries, by name."""
        return parse_custom_specs(*((job.summary or {}).get(metric.METRICS) for job in self.jobs))

    def ranked(self) -> list[tuple[Job, float | None]]:
        """Jobs with their values of the metric, best first; jobs without a value last."""
        valued = [(job, metric.value(self.metric, job.folder)) for job in self.jobs]
        sign = -1 if self.direction == "maximize" else 1
        return sorted(valued, key=lambda pair: (pair[1] is None, sign * (pair[1] or 0.0)))

    def values(self, job: Job) -> dict[str, float]:
        """The results of a finished job by name, and the metric, if it is not among them."""
        results = metric.results(job.summary or {})
        value = metric.value(self.metric, job.folder)
        return results if value is None else {metric.result_name(self.metric): value} | results

    def write(self) -> None:
        """Writes sweep.json atomically."""
        jobs = [{"folder": self._stored_folder(job), "values": job.values, "error": job.error} for job in self.jobs]
        record = {"command": self.command, "keys": self.keys, "metric": self.metric, "jobs": jobs}
        write_json(SweepFolder(self.folder).record, record)

    def _stored_folder(self, job: Job) -> str:
        """A relative path, so that the sweep can be moved; absolute for a resumed run that is elsewhere."""
        return job.name if job.folder.parent == self.folder else str(job.folder)


def read(folder: Path) -> Sweep | None:
    """The sweep in ``folder``; None if there is no sweep.json. Raises ValueError if it is corrupt."""
    file = SweepFolder(folder).record
    if not file.is_file():
        return None
    try:
        record = read_json(file)
        jobs = [Job(folder / str(job["folder"]), {str(key): str(value) for key, value in job["values"].items()},
                    job["error"]) for job in record["jobs"]]  # fmt: skip
        keys = [str(key) for key in record["keys"]]
        if any(key not in job.values for job in jobs for key in keys):
            raise ValueError  # every job has a value of each key
        if not all(isinstance(text, str | None) for text in (record["metric"], *(job.error for job in jobs))):
            raise ValueError
        return Sweep(folder, [str(item) for item in record["command"]], keys, record["metric"], jobs)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"{file}: corrupt; run the sweep again, it skips finished jobs") from None
