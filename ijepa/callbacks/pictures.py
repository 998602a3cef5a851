"""The same images through the run, as the features of their patches."""

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor

from ijepa import pictures
from ijepa.callbacks.recorder import Recorder
from ijepa.data.datamodule import DataModule
from ijepa.loggers import log_picture
from ijepa.models.positions import Grid
from ijepa.run_folder import RunFolder
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import eval_mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, PROJECTED = 4, 64
"""Images in a picture, and images whose principal components it shows."""
BATCH = 16
"""Images at once."""


class FeaturePictures(L.Callback):
    """Principal components of held-out images' patches, before the first step and ``count`` times along the run.

    Written as ``pictures/features/step-000500.png`` and handed to the loggers. Colours stay comparable from picture to
    picture (`ijepa.pictures.Colours`), also where the run was stopped in between: what they are matched with is a part
    of the checkpoint.

    Args:
        data: the images.
        grid: rows and columns of patches.
        recorder: its clock stands still meanwhile.
        folder: of the run.
        max_steps: of the run.
        count: pictures along the run, evenly spaced, the last one at its end.
    """

    def __init__(
        self, data: DataModule, grid: Grid, recorder: Recorder, folder: RunFolder, max_steps: int, count: int
    ) -> None:
        self.data = data
        self.grid = grid
        self.recorder = recorder
        self.folder = folder
        self.steps = {round(number * max_steps / count) for number in range(count + 1)}
        self._colours = pictures.Colours()
        self._drawn: dict[int, Tensor] = {}
        self._images: Tensor | None = None
        self._done = -1

    @property
    def state_key(self) -> str:
        """As in checkpoints from the first on."""
        return "Pictures"

    def state_dict(self) -> dict[str, Any]:
        return {"reference": self._colours.reference, "drawn": dict(self._drawn)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._colours.reference, self._drawn = state_dict["reference"], dict(state_dict["drawn"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, pl_module)
        self._done = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step != self._done and step in self.steps:
            self._draw(trainer, pl_module)
        self._done = step

    def progress(self) -> "Figure | None":
        """The pictures so far side by side; None before there are two."""
        images, places = self._examples()[:SHOWN], self.grid[0] * self.grid[1]
        drawn = {
            f"step {step:,}": colours.float() / 255
            for step, colours in sorted(self._drawn.items())
            if colours.shape[:2] == (len(images), places)  # others are from before the images changed
        }
        return pictures.colours(images, drawn, self.grid) if len(drawn) > 1 else None

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Every process encodes, the weights may be spread over them; the first draws."""
        images, step = self._examples(), trainer.global_step
        if not len(images):
            return
        assert isinstance(pl_module, TrainingModule)
        monitor = pl_module.monitor()
        assert monitor is not None
        # FSDP keeps its buffers, and trains with them later: not in inference mode. Compiled blocks stay as they are.
        with eval_mode(pl_module), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            features = torch.cat([monitor.features(part).float().cpu() for part in images.split(BATCH)])
        if trainer.is_global_zero:
            colours = self._colours(features)[:SHOWN]
            self._drawn[step] = (255 * colours).round().to(torch.uint8)
            figure = pictures.colours(images[:SHOWN], {f"step {step:,}": colours}, self.grid)
            pictures.write(figure, self.folder.feature_picture(step))
            log_picture(trainer.loggers, "features", figure, step)
        self.recorder.pause()

    def _examples(self) -> Tensor:
        if self._images is None:
            self._images = self.data.examples(PROJECTED)
        return self._images
