"""Hydra's basic sweeper and launcher, made to go on when a job's configuration is faulty.

Hydra finds plugins in packages called hydra_plugins on the path; ijepa/cli.py puts this one there.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ijepa.errors import UNWRITABLE, UserError
from ijepa.explain import explain


class SweepError(UserError):
    """Some jobs of a sweep failed; what was wrong with each has been said. Faults of the software exit with 1."""

    def __init__(self, results: Sequence[JobReturn]) -> None:
        failed = [result for result in results if result.status == JobStatus.FAILED]
        super().__init__(f"{len(failed)} of {len(results)} jobs failed")
        self.exit_code = UserError.exit_code if all(_mendable(result) for result in failed) else 1


class Launcher(BasicLauncher):  # type: ignore[misc]  # Hydra's plugins are untyped
    """Runs jobs one after another; one that cannot be composed fails alone, with one line on stderr."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        results = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            print(f"job {number}: {' '.join(overrides)}", flush=True)
            try:
                result = super().launch([overrides], number)[0]
            except Exception as error:
                result = JobReturn(overrides=overrides, status=JobStatus.FAILED)
                result.return_value = error
            if result.status == JobStatus.FAILED:
                if not _mendable(result):
                    traceback.print_exception(result._return_value)
                fault = explain(result._return_value, list(overrides))
                print(f"error: job {number} ({' '.join(overrides)}): {fault}", file=sys.stderr, flush=True)
            results.append(result)
        return results


class Sweeper(BasicSweeper):  # type: ignore[misc]
    """The Cartesian product of the values given; all jobs run, whatever becomes of the others."""

    def sweep(self, arguments: list[str]) -> Any:
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides(arguments), self.max_batch_size)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        results: list[JobReturn] = []
        for batch in batches:
            results += self.launcher.launch(batch, initial_job_idx=len(results))
        if any(result.status == JobStatus.FAILED for result in results):
            raise SweepError(results)
        return [results]


def _mendable(result: JobReturn) -> bool:
    fault = result._return_value
    full = isinstance(fault, OSError) and fault.errno in UNWRITABLE
    return full or isinstance(fault, UserError | HydraException | OmegaConfBaseException)
