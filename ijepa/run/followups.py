"""Commands that use a run, as they are printed: with the packages that its own classes need."""

from pathlib import Path

from ijepa.config.fields import Section
from ijepa.config.trust import typed_trust
from ijepa.util import commands


def resume(folder: Path, config: Section) -> str:
    """The command that resumes the run in ``folder``."""
    return f"{commands.command_line('train')} {commands.override('resume', folder)}{typed_trust(config)}"


def again(folder: Path) -> str:
    """How to resume a run whose teacher is trained, or partly, and that has no checkpoint of its own."""
    return f"run the same command again with {commands.override('run_dir', folder)} resume=auto"


def evaluate(folder: Path, config: Section) -> str:
    """The command that evaluates the run in ``folder``."""
    return f"{commands.command_line('evaluate')} {commands.override('checkpoint', folder)}{typed_trust(config)}"
