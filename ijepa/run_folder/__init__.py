"""A run's folder: the names of its files, their readers and writers, and upgrades of older config.yaml files."""

from ijepa.run_folder.checkpoints import CheckpointFolder
from ijepa.run_folder.folder import RunFolder
from ijepa.run_folder.sweep import SweepFolder

__all__ = ["CheckpointFolder", "RunFolder", "SweepFolder"]
