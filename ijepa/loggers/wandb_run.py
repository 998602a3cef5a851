"""Logs to a Weights & Biases run, in addition to metrics.csv."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ijepa import config as schema
from ijepa.run_folder import RunFolder
from ijepa.util.errors import UserError
from ijepa.util.files import write_json
from ijepa.util.metric_spec import MetricSpec
from ijepa.util.reading import read_json

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
"""Values of the environment variable WANDB_MODE that W&B knows."""
SUMMARIES = {"higher": "max", "lower": "min"}
"""How W&B summarises a metric, by which direction is better: as ``NAME.max`` or ``NAME.min``."""


class WandbRun(WandbLogger):
    """A W&B run, resumed when the training run is resumed.

    Args:
        settings: the logger's configuration.
        folder: the training run's folder.
        values: the whole configuration, shown by W&B.
        metrics: specs of the run's metrics, by column.
        resumed: whether the training run is resumed.

    Raises:
        UserError: if W&B is used online without a login, or WANDB_MODE is not one of its modes.
    """

    def __init__(
        self, settings: schema.WandbLogger, folder: Path, values: dict[str, Any],
        metrics: Mapping[str, MetricSpec], resumed: bool,
    ) -> None:  # fmt: skip
        asked = os.environ.get("WANDB_MODE", settings.mode)
        if asked not in MODES:
            raise UserError(f"WANDB_MODE={asked}: no such mode; try {', '.join(MODES[:3])}, or unset it")
        mode = asked if settings.mode == "online" else settings.mode
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise UserError("logger=wandb: not logged in to W&B; run `wandb login`, or add logger.mode=offline")
        stored = read_stored_run(folder) if resumed else {}
        is_same = all(stored.get(name, value) == value for name, value in _destination(settings).items())
        super().__init__(
            name=settings.run_name or folder.name,
            save_dir=folder,
            id=stored.get("id") if is_same else None,
            project=settings.project,
            mode=mode,
            config=values,
            entity=settings.entity,
            group=settings.group,
            job_type=settings.job_type,
            tags=settings.tags,
            notes=settings.notes,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning sets it, and W&B warns that it no longer exists
        self.settings = settings
        self.folder = folder
        self.metrics = metrics

    @rank_zero_only
    def begin(self) -> None:
        """Starts or resumes the W&B run, and stores its ID; raises UserError if W&B cannot start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            run = self.experiment
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0]
            problem = f"logger=wandb: W&B could not start a run ({reason}); fix that, or add logger.mode=offline"
            raise UserError(problem) from None
        for name, spec in self.metrics.items():
            summary = f"{SUMMARIES[spec.better]},last" if spec.better else "last"
            run.define_metric(name, step_metric="trainer/global_step", summary=summary)
        if self._wandb_init["mode"] != "disabled":
            write_json(RunFolder(self.folder).wandb_run, {"id": run.id, **_destination(self.settings)})

    @rank_zero_only
    def finish(self, failed: bool) -> None:
        """Finishes the W&B run; if it ``failed``, W&B shows it as failed."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(failed))
            self._experiment = None

    @rank_zero_only
    def log_text(self, name: str, text: str, step: int) -> None:  # type: ignore[override]
        """Logs a text to the history, and thus to the summary."""
        self.experiment.log({name: text, "trainer/global_step": step})

    @rank_zero_only
    def log_picture(self, name: str, picture: Image.Image, step: int) -> None:
        """Logs a picture as W&B image, with a slider over steps."""
        self.log_image(name, [picture], step=step)

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        """Sends an alert through W&B, by e-mail or Slack, according to the user's settings there."""
        self.experiment.alert(title, text, level="WARN")

    @rank_zero_only
    def log_files(self, name: str, paths: Sequence[Path]) -> None:
        """Uploads the existing files as an artifact of that name, if configured."""
        existing = [path for path in paths if path.is_file()]
        if name not in self.settings.artifacts or not existing:
            return
        artifact = wandb.Artifact(f"{name}-{self.experiment.id}", type="model", metadata={"run": self.folder.name})
        for path in existing:
            artifact.add_file(str(path), name=path.name)
        self.experiment.log_artifact(artifact)


def read_stored_run(folder: Path) -> dict[str, Any]:
    """ID, project and entity of the W&B run of a run's folder; {} if there is none."""
    try:
        values = read_json(RunFolder(folder).wandb_run)
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _destination(settings: schema.WandbLogger) -> dict[str, Any]:
    return {"project": settings.project, "entity": settings.entity}
