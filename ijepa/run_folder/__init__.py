"""A run's folder: the name of every file in it, the readers and writers of these files, the versions of config.yaml."""

from ijepa.run_folder.checkpoints import CheckpointFolder
from ijepa.run_folder.folder import RunFolder
from ijepa.run_folder.sweep import SweepFolder

__all__ = ["CheckpointFolder", "RunFolder", "SweepFolder"]
