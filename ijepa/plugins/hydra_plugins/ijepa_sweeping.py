"""Hydra's sweepers, made to keep a sweep's folder and to go on whatever becomes of a job.

Hydra finds plugins in packages called hydra_plugins on the path; ijepa/cli/entry.py puts this one there.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper as AnySweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from ijepa.cli.explain import explain
from ijepa.config import Tasks, TrainConfig
from ijepa.config.checks import parse
from ijepa.config.custom import TARGET
from ijepa.distributed.signals import defer_sigint_to_jobs
from ijepa.run import folders
from ijepa.run_folder import RunFolder, SweepFolder
from ijepa.sweeps import jobs, metric, outcomes, table
from ijepa.util import commands
from ijepa.util.errors import ConfigError, InterruptedRunError, StoppedJobError, UserError
from ijepa.util.metric_spec import MetricSpec

BESIDE = ("JoblibLauncher", "LocalLauncher")
"""Launchers whose jobs are processes of this terminal, which get Ctrl-C as this one does."""


class Sweeper(BasicSweeper):  # type: ignore[misc]  # Hydra's plugins are untyped
    """The Cartesian product of the values given."""

    def sweep(self, arguments: list[str]) -> Any:
        given = [*self._parse_config(), *arguments]
        overrides = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(given)
        launching = Jobs(self, given, arguments)
        count = 0
        for batch in self.split_arguments(overrides, self.max_batch_size):
            launching.launch(batch, initial_job_idx=count)
            count += len(batch)
        launching.end()
        return [launching.results]


class Optuna(AnySweeper):  # type: ignore[misc]
    """Optuna's search: in the direction of the metric, over all that is given a range or several values."""

    def __init__(self, direction: str, **options: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        self.direction = direction
        self.search = OptunaSweeperImpl(direction=direction, **options)

    def setup(self, **context: Any) -> None:
        self.search.setup(**context)
        self.config, self.hydra_context, self.launcher = (
            self.search.config, self.search.hydra_context, self.search.launcher,
        )  # fmt: skip

    def sweep(self, arguments: list[str]) -> Any:
        import optuna

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each would search by itself, with what it knows of the results
            raise ConfigError(
                "hydra/sweeper", "optuna", "does not work under torchrun; try hydra/launcher=submitit_slurm"
            )
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        given = [*self.search._parse_sweeper_params_config(), *arguments]
        self.search.launcher = launching = Jobs(self, given, arguments, valued=True)
        launching.masked = self.search.max_failure_rate == 1.0
        if self.direction == "auto":
            self.search.direction = launching.direction
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)
        try:
            self.search.sweep(arguments)
        except ValueError:  # of a search in which no job has a value
            if any(result.status == JobStatus.COMPLETED for result in launching.results):
                raise
        launching.end()
        return launching.results


class Jobs:
    """The jobs of a sweep, through its launcher: composed first, left out where finished, and kept in its folder.

    Args:
        sweeper: set up by Hydra.
        arguments: overrides of the whole sweep, with those of the sweeper's configuration.
        typed: those of the command line.
        valued: whether a job without a value of the metric has failed.
    """

    def __init__(self, sweeper: Any, arguments: list[str], typed: list[str], valued: bool = False) -> None:
        self.sweeper, self.valued = sweeper, valued
        self.config: DictConfig = sweeper.config
        self.results: list[JobReturn] = []
        self.quiet = folders.is_nonzero_rank()
        self.local = isinstance(sweeper.launcher, BasicLauncher)
        parsed = OverridesParser.create().parse_overrides(arguments)
        swept = [each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()]
        for key in {"run_dir", "sweep"} & set(swept):
            raise ConfigError(key, "...", "is the same for all jobs of a sweep; give a single value")
        keys = [each.get_key_element().lstrip("+~") for each in parsed]
        self.shared = [key for key in keys if key not in swept]
        self.masked = False
        """Whether failed jobs are handed back without their errors, which have been told, and which Optuna repeats."""
        self.sweep: jobs.Sweep | None = None
        if "run_dir" in self.config:
            folder = folders.sweep(self.config.run_dir, self.config.hydra.sweep.dir, typed, self.shared)
            self.sweep = jobs.Sweep(folder, typed, swept, self.config.metric)
            folders.make(folder)
            options: dict[str, Any] = getattr(sweeper.launcher, "params", {})  # submitit's, with the folder of before
            if "submitit_folder" in options:
                options["submitit_folder"] = str(folder / ".submitit" / "%j")
            self._set("hydra.sweep.dir", str(folder))
            self._set("hydra.job.config.override_dirname.exclude_keys", self.shared)
            self._tell(f"sweep    {folder}")

    @property
    def direction(self) -> str:
        """Optuna's word for what is better."""
        task = OmegaConf.to_container(self.config.get("task") or OmegaConf.create(), resolve=True)
        own = {name: node for name, node in dict(task).items() if isinstance(node, dict) and TARGET in node}  # type: ignore[arg-type]
        outside: dict[str, MetricSpec] = {}
        if own:  # the user's own tasks bring their own metrics
            from ijepa.evaluation import tasks  # takes seconds to import

            for each in tasks.chosen(parse(Tasks, own)).values():
                outside |= {spec.name: spec for spec in each.metrics(several=False)}
        return metric.direction(self.config.get("metric"), outside)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """As a launcher of Hydra's; no job's fault is raised."""
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        batch = {number: list(overrides) for number, overrides in zip(numbers, job_overrides, strict=True)}
        found: dict[int, JobReturn] = {}
        for number, overrides in batch.items():
            self._note(overrides)
            result = self._beforehand(overrides)
            if result is not None:
                found[number] = result
                self._report(number, overrides, result)
        left = [number for number in batch if number not in found]
        together = [[number] for number in left] if self.local else [left]
        for numbered in filter(None, together):
            for number in numbered:
                self._tell(f"job {number}: {' '.join(self._telling(batch[number]))}")
            for number, result in zip(numbered, self._launch(numbered, batch), strict=True):
                found[number] = self._judged(batch[number], result)
                self._report(number, batch[number], found[number])
            self._write()
        results = [found[number] for number in batch]
        self.results += results
        if self.masked:
            return [
                outcomes.result(each.overrides, None) if each.status == JobStatus.FAILED else each for each in results
            ]
        return results

    def end(self) -> None:
        """Tells the table; raises SweepError where jobs failed."""
        self._write()
        if self.sweep is not None and not self.quiet:
            Console().print(table.shown(self.sweep))
            self._tell(f"         {SweepFolder(self.sweep.folder).table}")
            self._tell(f"next: {commands.typed('report')} {self.sweep.folder}")
        if any(result.status == JobStatus.FAILED for result in self.results):
            raise outcomes.SweepError(self.results)

    def _launch(self, numbers: list[int], batch: dict[int, list[str]]) -> list[JobReturn]:
        """What the launcher makes of jobs with successive numbers; a fault of its own is one of them all."""
        results: list[JobReturn] = []
        came, ended = list[int](), ""
        beside = type(self.sweeper.launcher).__name__ in BESIDE
        waiting: AbstractContextManager[list[int]] = defer_sigint_to_jobs() if beside else nullcontext([])
        try:
            with waiting as came:
                results = list(self.sweeper.launcher.launch([batch[number] for number in numbers], numbers[0]))
        except (InterruptedRunError, KeyboardInterrupt) as stopped:
            came, ended = [getattr(stopped, "signal", signal.SIGINT)], str(stopped)
        except Exception as error:
            refused = outcomes.unqueued(error)
            found = (outcomes.result(batch[number], refused) if refused else self._from_folder(batch[number], error)
                     for number in numbers)  # fmt: skip
            results = list(found)
        stops = [each for each in results if isinstance(each._return_value, StoppedJobError)]
        if not came and not stops:
            return results
        for number, each in zip(numbers, results, strict=True) if stops else ():
            if each not in stops:
                self._report(number, batch[number], each)
        self._write()
        told = [ended, *(str(each._return_value) for each in stops)]
        if not self.local and not beside:
            told.append("submitted jobs continue on the cluster; when they have ended,")
        told.append("the same command resumes the sweep")
        raise InterruptedRunError(came[0] if came else signal.SIGINT, "\n".join(filter(None, told)))

    def _from_folder(self, overrides: list[str], error: Exception) -> JobReturn:
        """A job's result where its launcher has lost it: that of its folder, or else the error."""
        job = self._job(overrides)
        resumed = any(item.startswith("resume=") for item in overrides)  # its results may be those of before
        if job is not None and job.status == jobs.FINISHED and not resumed:
            return outcomes.result(overrides, metric.value(self.config.metric, job.folder))
        return outcomes.result(overrides, error)

    def _beforehand(self, overrides: list[str]) -> JobReturn | None:
        """The result of a job that cannot be composed, or is finished already."""
        try:
            composed = self.sweeper.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        except Exception as error:
            return outcomes.result(overrides, error)
        job = self._job(overrides)
        elsewhere = composed.get("init") is not None or composed.get("resume") not in (None, "auto")
        if job is None or elsewhere or not RunFolder(job.folder).config.exists():
            return None
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        try:
            from ijepa.run import resume

            if resume.finished(job.folder, parse(TrainConfig, composed)):
                self._tell(f"job finished before: {' '.join(self._telling(overrides))}")
                return self._judged(overrides, outcomes.result(overrides, metric.value(composed.metric, job.folder)))
        except UserError as error:
            return outcomes.result(overrides, error)
        return None

    def _judged(self, overrides: list[str], result: JobReturn) -> JobReturn:
        if self.valued and result.status == JobStatus.COMPLETED and result.return_value is None:
            problem = "the run has no such value; try train/loss, health/rankme or a result in its summary.json"
            return outcomes.result(overrides, ConfigError("metric", self.config.metric, problem))
        return result

    def _report(self, number: int, overrides: list[str], result: JobReturn) -> None:
        if result.status != JobStatus.FAILED:
            return
        if not outcomes.mendable(result):
            traceback.print_exception(result._return_value)
        fault = explain(result._return_value, list(overrides))
        job = self._job(overrides)
        if job is not None:
            job.error = fault
        named = " ".join(self._telling(overrides))
        print(f"error: job {number} ({named}): {fault}", file=sys.stderr, flush=True)

    def _note(self, overrides: list[str]) -> None:
        if self.sweep is not None and self._job(overrides) is None:
            values = {key.lstrip("+~"): value for key, _, value in (item.partition("=") for item in overrides)}
            values = {key: value for key, value in values.items() if key in self.sweep.keys}
            self.sweep.jobs.append(jobs.Job(self._place(overrides), values))

    def _job(self, overrides: list[str]) -> jobs.Job | None:
        if self.sweep is None:
            return None
        return next((job for job in self.sweep.jobs if job.folder == self._place(overrides)), None)

    def _place(self, overrides: list[str]) -> Path:
        assert self.sweep is not None
        for override in OverridesParser.create().parse_overrides(overrides) if "resume" in self.sweep.keys else ():
            if override.key_or_group == "resume" and override.value() not in (None, "auto"):
                path = Path(str(override.value())).expanduser().absolute()  # a run that goes on, where it is
                return path if path.is_dir() else path.parent.parent
        return self.sweep.folder / folders.job(overrides, self.shared)

    def _telling(self, overrides: list[str]) -> list[str]:
        """Without what is the same in all jobs."""
        return [item for item in overrides if item.partition("=")[0].lstrip("+~") not in self.shared] or overrides

    def _write(self) -> None:
        if self.sweep is not None and not self.quiet:
            self.sweep.write()
            table.write(self.sweep)

    def _set(self, key: str, value: str | list[str]) -> None:
        """For this process, and for the jobs, which compose their configurations anew."""
        with read_write(self.config), open_dict(self.config):
            OmegaConf.update(self.config, key, value)
            typed = "'" + value.replace("'", "\\'") + "'" if isinstance(value, str) else f"[{','.join(value)}]"
            self.config.hydra.overrides.hydra.append(f"{key}={typed}")

    def _tell(self, line: str) -> None:
        if not self.quiet:
            print(line, flush=True)
