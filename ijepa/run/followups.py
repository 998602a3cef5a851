"""Commands that use a run, as they are printed: with the packages that its own classes need."""

from pathlib import Path

from ijepa.config.fields import Section
from ijepa.config.trust import typed_trust
from ijepa.util import commands


def resume(folder: Path, config: Section) -> str:
    """The command that resumes the run in ``folder``."""
    return f"{commands.command_line('train')} {commands.override('resume', folder)}{typed_trust(config)}"


def evaluate(folder: Path, config: Section) -> str:
    """The command that evaluates the run in ``folder``."""
    return f"{commands.command_line('evaluate')} {commands.override('checkpoint', folder)}{typed_trust(config)}"
