"""TensorBoard, in addition to metrics.csv."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ijepa.run_folder import RunFolder


class TensorBoardRun(TensorBoardLogger):
    """Writes event files to ``tensorboard/`` in the run's folder.

    Args:
        folder: the run's folder.
        config: the configuration as text, shown next to the curves.
        step: the step from which the run is resumed; later events are dropped. 0 for a new run.
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
        """Closes the file if it was opened."""
        if self._experiment is not None:
            self._experiment.close()

    @rank_zero_only
    def log_text(self, name: str, text: str, step: int) -> None:
        """Logs a text, shown in the Text tab."""
        self.experiment.add_text(name, text, step)

    @rank_zero_only
    def log_picture(self, name: str, picture: Image.Image, step: int) -> None:
        """Logs a picture, shown in the Images tab with a slider over steps."""
        self.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def save(self) -> None:
        """Does nothing: Lightning's would write the hyperparameters, which config.yaml holds."""
