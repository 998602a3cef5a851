"""TensorBoard, beside metrics.csv."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ijepa.run_folder import RunFolder


class TensorBoardRun(TensorBoardLogger):
    """Event files in ``tensorboard/`` of the run's folder.

    Args:
        folder: of the run.
        config: as text, shown beside the curves.
        step: after which the run goes on; what stands there of later ones is dropped. 0 for a new run.
    """

    def __init__(self, folder: Path, config: str, step: int) -> None:
        purge: dict[str, Any] = {"purge_step": step + 1} if step else {}
        self.events = RunFolder(folder).tensorboard
        super().__init__(folder, name=self.events.name, version="", default_hp_metric=False, **purge)
        self.config = config

    @rank_zero_only
    def begin(self) -> None:
        """Writes the configuration."""
        if not any(self.events.glob("events.*")):
            self.experiment.add_text("config", f"```yaml\n{self.config}\n```", 0)

    @rank_zero_only
    def finish(self, failed: bool) -> None:
        """Closes the file, where one was begun."""
        if self._experiment is not None:
            self._experiment.close()

    @rank_zero_only
    def log_text(self, name: str, text: str, step: int) -> None:
        """Under the tab of texts."""
        self.experiment.add_text(name, text, step)

    @rank_zero_only
    def log_picture(self, name: str, picture: Image.Image, step: int) -> None:
        """Under the tab of images, with a slider through the steps."""
        self.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def save(self) -> None:
        """Nothing but events: config.yaml holds the rest."""
