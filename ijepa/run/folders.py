"""The folder of a new run: chosen once for all of its processes, never shared with another run."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from ijepa.config import TrainConfig
from ijepa.distributed import slurm
from ijepa.run_folder import RunFolder
from ijepa.util.errors import ConfigError

FOLDER_VARIABLE = "IJEPA_RUN_DIR"
"""Tells the processes that a launcher starts for other devices which folder the first one has chosen."""


NAME = 80
"""Characters of a sweep's name, at most."""
_locks: set[int] = set()


def _release() -> None:
    """In a forked process, such as a loader's worker, which would keep the lock of one that was killed."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_release)


def choose(config: TrainConfig, overrides: list[str]) -> Path:
    """The new run's folder, free unless it `resumes_existing`; the same for all processes of a run."""
    if FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE])
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir) / job(overrides, _shared())
    name, queued = config.data.source.rpartition(".")[2], slurm.job()
    if config.run_dir is None and queued is not None and os.environ.get("SLURM_PROCID") is not None:
        return Path("runs", f"{name}-slurm-{queued}")  # the same for all its processes, and after a restart
    several = config.hardware.nodes > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if config.run_dir is None and ("TORCHELASTIC_RUN_ID" in os.environ or several):
        problem = "with torchrun, Slurm or several nodes all processes need to know the folder; add run_dir=FOLDER"
        raise ConfigError("run_dir", None, problem)
    if config.run_dir == "":
        raise ConfigError("run_dir", "", "needs a folder; try null for a new one under runs/")
    if config.run_dir is None:
        return numbered(Path("runs"), name)
    folder = Path(config.run_dir).expanduser()
    if not resumes_existing(config):
        validate_unused(folder)
    return folder


def resumes_existing(config: TrainConfig) -> bool:
    """Whether an existing run in the folder is continued: skipped if finished, else resumed."""
    return HydraConfig.get().mode == RunMode.MULTIRUN or config.resume == "auto" or slurm.restarted()


def sweep(run_dir: str | None, default: str, overrides: list[str], shared: list[str]) -> Path:
    """A sweep's folder: the same for the same command.

    Args:
        run_dir: the configuration's.
        default: hydra.sweep.dir.
        overrides: those of the command, sweeps over values included.
        shared: keys that are the same in all jobs; but for sweep=, they are a few digits of the name alone.
    """
    if run_dir is not None:
        return Path(run_dir).expanduser().absolute()
    if default != "runs":
        return Path(default).absolute()
    rest = [key for key in shared if key != "sweep"]
    named = [item for item in overrides if item.lstrip("+~").partition("=")[0] not in rest]
    others = sorted(item for item in overrides if item not in named)
    name = "sweep_" + job(named, []).removeprefix("sweep-")[:NAME]
    if others or len(job(named, [])) > NAME:
        name += "_" + hashlib.sha256("\n".join([*named, *others]).encode()).hexdigest()[:8]
    return Path("runs", name).absolute()


def job(overrides: list[str], shared: list[str]) -> str:
    """The name of a job's folder in its sweep's: what tells it from the others.

    Args:
        overrides: of the job.
        shared: keys that are the same in all jobs.
    """
    return slug([item for item in overrides if item.lstrip("+~").partition("=")[0] not in ("run_dir", *shared)])


def _shared() -> list[str]:
    return list(HydraConfig.get().job.config.override_dirname.exclude_keys)


def validate_unused(folder: Path) -> None:
    """Raises ConfigError if ``folder`` contains a run."""
    run = RunFolder(folder)
    found = [path.name for path in (run.config, run.metrics, run.checkpoints.path) if path.exists()]
    if not found or is_nonzero_rank():
        return
    if run.config.name not in found:
        raise ConfigError("run_dir", folder, f"contains part of a run, {found[0]}; give another run_dir")
    resumable = any(run.checkpoints.path.glob("*.ckpt"))
    way = f"resume it with resume={folder}" if resumable else "it has no checkpoint; remove it"
    raise ConfigError("run_dir", folder, f"contains a run; {way}, or give another run_dir")


def make(folder: Path, key: str = "run_dir") -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(key, folder, f"cannot be created: {error.strerror}") from None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Locks ``folder`` against other processes; the lock is released however this process ends.

    Raises:
        ConfigError: if another process has locked it, or the folder cannot be written to.
    """
    if is_nonzero_rank():
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
        except (ImportError, OSError):  # a system or a file system without locks
            pass
        yield


def numbered(parent: Path, name: str) -> Path:
    """Creates the next free folder, atomically, because another run may start at the same moment."""
    make(parent)
    while True:
        tails = [path.name.rpartition("-")[2] for path in parent.glob(f"{name}-*")]
        numbers = [int(tail) for tail in tails if tail.isdecimal()]
        folder = parent / f"{name}-{max(numbers, default=0) + 1:03}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def is_nonzero_rank() -> bool:
    """Whether this process is another than the first of its run, which looks after the folder."""
    names = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return any(int(os.environ.get(name, "0")) > 0 for name in names)


def slug(overrides: list[str]) -> str:
    """A folder name from overrides, without characters that are special in Hydra's grammar."""
    text = "_".join(overrides).replace("=", "-")
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in text) or "default"
    return name if len(name) <= 180 else f"{name[:180]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
