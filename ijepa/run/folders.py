"""The folder of a new run: the same for all of its processes, never shared with another run."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ijepa.config import Hardware, TrainConfig
from ijepa.distributed import slurm
from ijepa.run import followups
from ijepa.run_folder import RunFolder
from ijepa.util import commands
from ijepa.util.errors import ConfigError
from ijepa.util.overrides import without_quotes
from ijepa.util.processes import is_rank_zero

FOLDER_VARIABLE = "IJEPA_RUN_DIR"
"""Environment variable with the folder that the first process has chosen, for the processes of other devices."""
MAX_NAME_LENGTH = 80
"""Characters of a sweep's name, at most."""
_locks: set[int] = set()


def _close_inherited_locks() -> None:
    """Called in forked processes, e.g. data loader workers, which otherwise keep the lock when the run is killed."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_inherited_locks)


def choose(config: TrainConfig, overrides: list[str]) -> Path:
    """The run's folder, the same in all of its processes; unused, unless `resumes_existing`.

    Raises:
        ConfigError: when ``run_dir`` contains a run, is empty, or is not set though processes cannot agree on a folder.
    """
    if FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE])
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir) / job_name(overrides, _shared_keys())
    name, queued = config.data.source.rpartition(".")[2], slurm.job_id()
    if config.run_dir is None and queued is not None and os.environ.get("SLURM_PROCID") is not None:
        return Path("runs", f"{name}-slurm-{queued}")  # the same in all processes, and after a requeue
    several = config.hardware.nodes > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if config.run_dir is None and ("TORCHELASTIC_RUN_ID" in os.environ or several):
        problem = "with torchrun, Slurm or several nodes all processes need to know the folder; add run_dir=FOLDER"
        raise ConfigError("run_dir", None, problem)
    if config.run_dir == "":
        raise ConfigError("run_dir", "", "needs a folder; try null for a new one under runs/")
    if config.run_dir is None:
        return next_numbered(Path("runs"), name)
    folder = Path(config.run_dir).expanduser()
    if not resumes_existing(config):
        validate_unused(folder)
    return folder


@contextlib.contextmanager
def announced(folder: Path, hardware: Hardware) -> Iterator[None]:
    """Lets the processes that Lightning starts meanwhile choose ``folder``, too."""
    inherited = FOLDER_VARIABLE in os.environ
    if hardware.strategy != "single":
        os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if not inherited:  # the next run of this process has another folder
            os.environ.pop(FOLDER_VARIABLE, None)


def resumes_existing(config: TrainConfig) -> bool:
    """Whether a run that exists in the folder is resumed, or skipped if it is finished."""
    return HydraConfig.get().mode == RunMode.MULTIRUN or config.resume == "auto" or slurm.was_requeued()


def sweep_folder(run_dir: str | None, default: str, overrides: list[str], shared: list[str]) -> Path:
    """A sweep's folder: the same for the same command.

    Args:
        run_dir: of the configuration.
        default: ``hydra.sweep.dir``.
        overrides: of the command, swept values included.
        shared: keys that are the same in all jobs; except for ``sweep``, they appear in the name only as a hash.
    """
    if run_dir is not None:
        return Path(run_dir).expanduser().absolute()
    if default != "runs":
        return Path(default).absolute()
    rest = [key for key in shared if key != "sweep"]
    named = [item for item in overrides if item.lstrip("+~").partition("=")[0] not in rest]
    unnamed = sorted(item for item in overrides if item not in named)
    name = "sweep_" + job_name(named, []).removeprefix("sweep-")[:MAX_NAME_LENGTH]
    if unnamed or len(job_name(named, [])) > MAX_NAME_LENGTH:
        name += "_" + hashlib.sha256("\n".join([*named, *unnamed]).encode()).hexdigest()[:8]
    return Path("runs", name).absolute()


def job_name(overrides: list[str], shared: list[str]) -> str:
    """The name of a job's folder in its sweep: the overrides that differ between jobs.

    Args:
        overrides: of the job.
        shared: keys that are the same in all jobs.
    """
    return slug([item for item in overrides if item.lstrip("+~").partition("=")[0] not in ("run_dir", *shared)])


def _shared_keys() -> list[str]:
    return list(HydraConfig.get().job.config.override_dirname.exclude_keys)


def validate_unused(folder: Path) -> None:
    """Raises ConfigError if ``folder`` contains a run."""
    run = RunFolder(folder)
    existing = [path.name for path in (run.config, run.metrics, run.checkpoints.path) if path.exists()]
    if not existing or not is_rank_zero():
        return
    if run.config.name not in existing:
        raise ConfigError("run_dir", folder, f"contains part of a run, {existing[0]}; give another run_dir")
    resumable = any(run.checkpoints.path.glob("*.ckpt"))
    remedy = f"resume it with {commands.override('resume', folder)}" if resumable else "it has no checkpoint; remove it"
    if not resumable and run.teacher_run.exists():
        remedy = f"only its teacher has a checkpoint; {followups.again(folder)}"
    raise ConfigError("run_dir", folder, f"contains a run; {remedy}, or give another run_dir")


def create(folder: Path, key: str = "run_dir") -> None:
    """Creates ``folder`` if needed; raises ConfigError about ``key`` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(key, folder, f"cannot be created: {error.strerror}") from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks ``folder`` against other runs; the lock is released even if this process is killed.

    Raises:
        ConfigError: if another process has locked it, or the folder cannot be written to.
    """
    if not is_rank_zero():
        yield
        return
    if not os.access(folder, os.W_OK):
        raise ConfigError("run_dir", folder, "cannot be written to")
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _locks.add(descriptor)
            stack.callback(_locks.discard, descriptor)
        except BlockingIOError:
            problem = "another process is using it; wait, or give another run_dir"
            raise ConfigError("run_dir", folder, problem) from None
        except (ImportError, OSError):  # no locks on this system or file system
            pass
        yield


def next_numbered(parent: Path, name: str) -> Path:
    """Creates and returns the next free folder ``NAME-001``, ...; safe if another run starts at the same time."""
    create(parent)
    while True:
        tails = [path.name.rpartition("-")[2] for path in parent.glob(f"{name}-*")]
        numbers = [int(tail) for tail in tails if tail.isdecimal()]
        folder = parent / f"{name}-{max(numbers, default=0) + 1:03}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def slug(overrides: list[str]) -> str:
    """A folder name from overrides, without characters that have a meaning in Hydra's override grammar."""
    text = "_".join(without_quotes(item) for item in overrides).replace("=", "-")
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in text) or "default"
    return name if len(name) <= 180 else f"{name[:180]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
