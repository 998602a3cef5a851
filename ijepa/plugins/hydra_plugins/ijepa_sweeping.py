"""Hydra's sweepers, extended: they record the sweep in its folder, skip finished jobs and continue after failures.

Hydra finds plugins in packages called hydra_plugins on the path; ijepa/cli/entry.py puts this folder there.
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
from ijepa.util.processes import is_rank_zero

LOCAL_LAUNCHERS = ("JoblibLauncher", "LocalLauncher")
"""Launchers whose jobs are processes in the same terminal, so that Ctrl-C reaches them, too."""


class Sweeper(BasicSweeper):  # type: ignore[misc]  # Hydra's plugins are untyped
    """Grid search: one job for each combination of the swept values."""

    def sweep(self, arguments: list[str]) -> Any:
        given = [*self._parse_config(), *arguments]
        overrides = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(given)
        sweep_jobs = Jobs(self, given, arguments)
        count = 0
        for batch in self.split_arguments(overrides, self.max_batch_size):
            sweep_jobs.launch(batch, initial_job_idx=count)
            count += len(batch)
        sweep_jobs.end()
        return [sweep_jobs.results]


class Optuna(AnySweeper):  # type: ignore[misc]
    """Optuna's search over all keys that have a range or several values, in the direction of the metric."""

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

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # each process would run a search of its own
            raise ConfigError(
                "hydra/sweeper", "optuna", "does not work under torchrun; try hydra/launcher=submitit_slurm"
            )
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        given = [*self.search._parse_sweeper_params_config(), *arguments]
        self.search.launcher = sweep_jobs = Jobs(self, given, arguments, needs_value=True)
        sweep_jobs.hide_errors = self.search.max_failure_rate == 1.0
        if self.direction == "auto":
            self.search.direction = sweep_jobs.direction
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.CRITICAL)
        try:
            self.search.sweep(arguments)
        except ValueError:  # Optuna's, if no job has a value
            if any(result.status == JobStatus.COMPLETED for result in sweep_jobs.results):
                raise
        sweep_jobs.end()
        return sweep_jobs.results


class Jobs:
    """A launcher that wraps the sweeper's own: it skips finished jobs and records all jobs in the sweep's folder.

    Args:
        sweeper: set up by Hydra.
        arguments: overrides of the whole sweep: of the command line and of the sweeper's configuration.
        typed: overrides of the command line.
        needs_value: whether a job fails if it has no value of the metric.
    """

    def __init__(self, sweeper: Any, arguments: list[str], typed: list[str], needs_value: bool = False) -> None:
        self.sweeper, self.needs_value = sweeper, needs_value
        self.config: DictConfig = sweeper.config
        self.results: list[JobReturn] = []
        self.local, self.quiet = isinstance(sweeper.launcher, BasicLauncher), not is_rank_zero()
        parsed = OverridesParser.create().parse_overrides(arguments)
        swept = [each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()]
        for key in {"run_dir", "sweep"} & set(swept):
            raise ConfigError(key, "...", "is the same for all jobs of a sweep; give a single value")
        keys = [each.get_key_element().lstrip("+~") for each in parsed]
        self.shared = [key for key in keys if key not in swept]
        self.hide_errors = False
        """Whether failed jobs are returned without their errors: they are printed already, Optuna would repeat them."""
        self.sweep: jobs.Sweep | None = None
        if "run_dir" in self.config:
            folder = folders.sweep_folder(self.config.run_dir, self.config.hydra.sweep.dir, typed, self.shared)
            self.sweep = jobs.Sweep(folder, typed, swept, self.config.metric)
            folders.create(folder)
            options: dict[str, Any] = getattr(sweeper.launcher, "params", {})  # of submitit, with the default folder
            if "submitit_folder" in options:
                options["submitit_folder"] = str(folder / ".submitit" / "%j")
            self._set("hydra.sweep.dir", str(folder))
            self._set("hydra.job.config.override_dirname.exclude_keys", self.shared)
            self._print(f"sweep    {folder}")

    @property
    def direction(self) -> str:
        """``maximize`` or ``minimize``, as Optuna calls it."""
        task = OmegaConf.to_container(self.config.get("task") or OmegaConf.create(), resolve=True)
        custom_tasks = {name: node for name, node in dict(task).items() if isinstance(node, dict) and TARGET in node}  # type: ignore[arg-type]
        custom: dict[str, MetricSpec] = {}
        if custom_tasks:  # the user's own tasks bring their own metrics
            from ijepa.evaluation import tasks  # takes seconds to import

            for each in tasks.build_tasks(parse(Tasks, custom_tasks)).values():
                custom |= {spec.name: spec for spec in each.metrics(several=False)}
        return metric.direction(self.config.get("metric"), custom)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Launches jobs, as a launcher of Hydra does; errors of jobs are reported and returned, not raised."""
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        batch = {number: list(overrides) for number, overrides in zip(numbers, job_overrides, strict=True)}
        outcome: dict[int, JobReturn] = {}
        for number, overrides in batch.items():
            self._register(overrides)
            result = self._early_result(overrides)
            if result is not None:
                outcome[number] = result
                self._report(number, overrides, result)
        remaining = [number for number in batch if number not in outcome]
        groups = [[number] for number in remaining] if self.local else [remaining]
        for numbers_of_group in filter(None, groups):
            for number in numbers_of_group:
                self._print(f"job {number}: {' '.join(self._distinct_overrides(batch[number]))}")
            for number, result in zip(numbers_of_group, self._launch(numbers_of_group, batch), strict=True):
                outcome[number] = self._require_value(batch[number], result)
                self._report(number, batch[number], outcome[number])
            self._write()
        results = [outcome[number] for number in batch]
        self.results += results
        if self.hide_errors:
            return [
                outcomes.result(each.overrides, None) if each.status == JobStatus.FAILED else each for each in results
            ]
        return results

    def end(self) -> None:
        """Writes and prints the table; raises SweepError if jobs failed."""
        self._write()
        if self.sweep is not None and not self.quiet:
            Console().print(table.terminal_table(self.sweep))
            self._print(f"         {SweepFolder(self.sweep.folder).table}")
            self._print(f"next: {commands.command_line('report')} {commands.typed(self.sweep.folder)}")
        if any(result.status == JobStatus.FAILED for result in self.results):
            raise outcomes.SweepError(self.results)

    def _launch(self, numbers: list[int], batch: dict[int, list[str]]) -> list[JobReturn]:
        """Runs jobs with successive numbers; an error of the launcher itself counts for all of them.

        Raises:
            InterruptedRunError: when a signal stopped the sweep.
        """
        results: list[JobReturn] = []
        signals, message = list[int](), ""
        local_processes = type(self.sweeper.launcher).__name__ in LOCAL_LAUNCHERS
        waiting: AbstractContextManager[list[int]] = defer_sigint_to_jobs() if local_processes else nullcontext([])
        try:
            with waiting as signals:
                results = list(self.sweeper.launcher.launch([batch[number] for number in numbers], numbers[0]))
        except (InterruptedRunError, KeyboardInterrupt) as stopped:
            signals, message = [getattr(stopped, "signal", signal.SIGINT)], str(stopped)
        except Exception as error:
            rejection = outcomes.submission_error(error)
            results = [
                outcomes.result(batch[number], rejection) if rejection else self._from_folder(batch[number], error)
                for number in numbers
            ]
        stops = [each for each in results if isinstance(each._return_value, StoppedJobError)]
        if not signals and not stops:
            return results
        for number, each in zip(numbers, results, strict=True) if stops else ():
            if each not in stops:
                self._report(number, batch[number], each)
        self._write()
        lines = [message, *(str(each._return_value) for each in stops)]
        if not self.local and not local_processes:
            lines.append("submitted jobs continue on the cluster; when they have ended,")
        lines.append("the same command resumes the sweep")
        raise InterruptedRunError(signals[0] if signals else signal.SIGINT, "\n".join(filter(None, lines)))

    def _from_folder(self, overrides: list[str], error: Exception) -> JobReturn:
        """The outcome of a job whose launcher failed: from its folder if the job finished, else the error."""
        job = self._job(overrides)
        resumed = any(item.startswith("resume=") for item in overrides)  # its summary may be from before the resume
        if job is not None and job.status == jobs.FINISHED and not resumed:
            return outcomes.result(overrides, metric.value(self.config.metric, job.folder))
        return outcomes.result(overrides, error)

    def _early_result(self, overrides: list[str]) -> JobReturn | None:
        """The outcome of a job that need not run: it cannot be composed, or is finished already. Else None."""
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

            if resume.is_finished(job.folder, parse(TrainConfig, composed)):
                self._print(f"job finished already: {' '.join(self._distinct_overrides(overrides))}")
                finished = outcomes.result(overrides, metric.value(composed.metric, job.folder))
                return self._require_value(overrides, finished)
        except UserError as error:
            return outcomes.result(overrides, error)
        return None

    def _require_value(self, overrides: list[str], result: JobReturn) -> JobReturn:
        if self.needs_value and result.status == JobStatus.COMPLETED and result.return_value is None:
            problem = "the run has no such value; try train/loss, health/rankme or a result in its summary.json"
            return outcomes.result(overrides, ConfigError("metric", self.config.metric, problem))
        return result

    def _report(self, number: int, overrides: list[str], result: JobReturn) -> None:
        if result.status != JobStatus.FAILED:
            return
        if not outcomes.is_user_error(result):
            traceback.print_exception(result._return_value)
        message = explain(result._return_value, list(overrides))
        job = self._job(overrides)
        if job is not None:
            job.error = message
        name = " ".join(self._distinct_overrides(overrides))
        print(f"error: job {number} ({name}): {message}", file=sys.stderr, flush=True)

    def _register(self, overrides: list[str]) -> None:
        if self.sweep is not None and self._job(overrides) is None:
            values = {key.lstrip("+~"): value for key, _, value in (item.partition("=") for item in overrides)}
            values = {key: value for key, value in values.items() if key in self.sweep.keys}
            self.sweep.jobs.append(jobs.Job(self._job_folder(overrides), values))

    def _job(self, overrides: list[str]) -> jobs.Job | None:
        if self.sweep is None:
            return None
        return next((job for job in self.sweep.jobs if job.folder == self._job_folder(overrides)), None)

    def _job_folder(self, overrides: list[str]) -> Path:
        assert self.sweep is not None
        for override in OverridesParser.create().parse_overrides(overrides) if "resume" in self.sweep.keys else ():
            if override.key_or_group == "resume" and override.value() not in (None, "auto"):
                path = Path(str(override.value())).expanduser().absolute()  # a resumed run stays in its folder
                return path if path.is_dir() else path.parent.parent
        return self.sweep.folder / folders.job_name(overrides, self.shared)

    def _distinct_overrides(self, overrides: list[str]) -> list[str]:
        """The overrides that differ between jobs; all of them, if none does."""
        return [item for item in overrides if item.partition("=")[0].lstrip("+~") not in self.shared] or overrides

    def _write(self) -> None:
        if self.sweep is not None and not self.quiet:
            self.sweep.write()
            table.write(self.sweep)

    def _set(self, key: str, value: str | list[str]) -> None:
        """Sets a Hydra key for this process, and for the jobs, which compose their own configurations."""
        with read_write(self.config), open_dict(self.config):
            OmegaConf.update(self.config, key, value)
            typed = "'" + value.replace("'", "\\'") + "'" if isinstance(value, str) else f"[{','.join(value)}]"
            self.config.hydra.overrides.hydra.append(f"{key}={typed}")

    def _print(self, line: str) -> None:
        if not self.quiet:
            print(line, flush=True)
