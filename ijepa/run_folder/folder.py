"""The names of the files in a run's folder, defined only here."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ijepa.run_folder import checkpoints
from ijepa.run_folder.checkpoints import CheckpointFolder, step_name, step_of

FINAL_PICTURES = ("masks", "features", "similarity", "attention", "curves", "progress", "samples")
"""Pictures that a run draws at its end."""
REPORT = "report.html"
ENCODER = "encoder"
"""The name under which pretraining exports the target encoder."""
TEACHER = "teacher"
"""The name under which pretraining keeps the frozen encoder whose features it predicts, for when it resumes."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Attributes:
        path: of the folder, which may not exist yet.
    """

    path: Path

    @classmethod
    def of(cls, file: Path) -> "RunFolder":
        """The run folder that contains a checkpoint or an exported encoder; for a stand-alone file, its folder."""
        return cls(file.parent.parent if file.parent.name == checkpoints.FOLDER else file.parent)

    @property
    def config(self) -> Path:
        """The configuration that the run started with, see `ijepa.run_folder.config`."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A row per step, see `ijepa.run_folder.metrics`."""
        return self.path / "metrics.csv"

    @property
    def health(self) -> Path:
        """The health verdicts, see `ijepa.run_folder.health`."""
        return self.path / "health.json"

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The folder of checkpoints."""
        return CheckpointFolder(self.path / checkpoints.FOLDER)

    @property
    def encoder(self) -> Path:
        """The exported target encoder of a finished run."""
        return self.export(ENCODER)

    def export(self, name: str) -> Path:
        """The file of an exported network."""
        return self.path / f"{name}.safetensors"

    @property
    def teacher_run(self) -> Path:
        """The folder of the run that trains the frozen encoder first, see `ijepa.run.teacher_run`."""
        return self.path / TEACHER

    @property
    def summary(self) -> Path:
        """The results of a finished run, see `ijepa.run_folder.summary`."""
        return self.path / "summary.json"

    @property
    def pictures(self) -> Path:
        """The folder of the pictures that train.py draws."""
        return self.path / "pictures"

    def feature_picture(self, step: int) -> Path:
        """The picture of the target encoder's features after ``step``."""
        return self._features / f"{step_name(step)}.png"

    @property
    def _features(self) -> Path:
        return self.pictures / "features"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """The folder of W&B's local files."""
        return self.path / "wandb"

    @property
    def wandb_run(self) -> Path:
        """The file that stores the id of the W&B run."""
        return self.path / "wandb.json"

    @property
    def evaluations(self) -> Path:
        """The folder of evaluate.py, with a folder for each evaluation, see `ijepa.run_folder.evaluation`."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The HTML page of `python -m ijepa.report`."""
        return self.path / REPORT

    def results(self, exports: Iterable[str] = (ENCODER,)) -> list[Path]:
        """Paths of the files that a run writes at its end; they need not exist yet.

        Args:
            exports: names of the networks that it exports.
        """
        return [*map(self.export, exports), self.summary, *(self.pictures / f"{name}.png" for name in FINAL_PICTURES)]

    def all_pictures(self) -> list[Path]:
        """The pictures of train.py and of evaluate.py."""
        folders = (self.pictures, self.evaluations)
        return [path for folder in folders for path in folder.rglob("*.png") if path.is_file()]

    def later_configs(self, step: int = -1) -> list[tuple[int, Path]]:
        """The configurations that resumes after ``step`` have written: step and path of each, oldest first."""
        matches = [
            (re.fullmatch(r"config-(\d+)(?:-(\d+))?", path.stem), path) for path in self.path.glob("config-*.yaml")
        ]
        ordered = sorted((int(match[1]), int(match[2] or 1), path) for match, path in matches if match)
        return [(resumed, path) for resumed, _, path in ordered if resumed > step]

    def newest_config(self, step: int | None = None) -> Path:
        """The configuration of the run as it was at ``step``; None: at its last step."""
        written = [path for resumed, path in self.later_configs() if step is None or resumed <= step]
        return written[-1] if written else self.config

    def next_config(self, step: int) -> Path:
        """An unused path for the configuration of a resume after ``step``: config-000100.yaml, config-000100-2.yaml."""
        names = [f"config-{step:06}", *(f"config-{step:06}-{count}" for count in range(2, 1000))]
        return next(path for path in (self.path / f"{name}.yaml" for name in names) if not path.exists())

    def drop_after(self, step: int, exports: Iterable[str] = (ENCODER,)) -> None:
        """Removes results, and pictures and configurations of later steps, before the run resumes after ``step``.

        Checkpoints, metrics and health verdicts are rewound by the classes that write them.
        """
        for path in self.results(exports):
            path.unlink(missing_ok=True)
        for path in self._features.glob("step-*.png"):
            if (step_of(path) or 0) > step:
                path.unlink()
        for _, path in self.later_configs(step):
            path.unlink()

    def clear(self) -> None:
        """Removes the files of a run without a checkpoint."""
        for path in (self.config, self.metrics, self.health):
            path.unlink(missing_ok=True)
        for path in (self.checkpoints.path, self.pictures, self.wandb, self.tensorboard):
            shutil.rmtree(path, ignore_errors=True)
