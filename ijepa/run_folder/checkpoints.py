"""The names in checkpoints/: step-000100.ckpt, last.ckpt and best-*.ckpt."""

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = "checkpoints"


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder of checkpoints.

    Attributes:
        path: of the folder, which may not exist yet.
    """

    path: Path

    @property
    def last(self) -> Path:
        """A link to the newest checkpoint."""
        return self.path / "last.ckpt"

    def step(self, step: int) -> Path:
        """The checkpoint after ``step``."""
        return self.path / f"{step_name(step)}.ckpt"

    def numbered(self) -> list[Path]:
        """The checkpoints with a step in their names, oldest first."""
        steps = {path: step_of(path) for path in self.path.glob("step-*.ckpt")}
        return sorted((path for path, step in steps.items() if step is not None), key=lambda path: steps[path] or 0)

    def best(self, measure: str) -> Path:
        """A link to the best checkpoint by a measure, e.g. ``rankme``."""
        return self.path / f"best-{measure}.ckpt"

    def all_best(self) -> dict[str, Path]:
        """The best checkpoints that exist, by measure."""
        return {path.stem.removeprefix("best-"): path for path in sorted(self.path.glob("best-*.ckpt"))}

    def unfinished(self) -> list[Path]:
        """Temporary files of processes that were killed while writing, see `ijepa.util.files.replacing`."""
        return list(self.path.glob(".*.ckpt.*"))


def step_name(step: int) -> str:
    """The stem of a step's checkpoint or picture, e.g. ``step-000100``."""
    return f"step-{step:06}"


def step_of(path: Path) -> int | None:
    """The step in a file's name; None if there is none."""
    match = re.fullmatch(r"step-(\d{1,15})", path.stem)
    return int(match[1]) if match else None
