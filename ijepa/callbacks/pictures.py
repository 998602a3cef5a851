"""Pictures of the patch features of the same images along a run."""

import math
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
from ijepa.training.protocol import Monitor, eval_mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN, PROJECTED = 4, 64
"""Number of images in a picture, and number from which the principal components are computed."""
BATCH = 16
"""Images per forward pass."""


class FeaturePictures(L.Callback):
    """Principal components of held-out images' patches, before the first step and ``count`` times along the run.

    Written as ``pictures/features/step-000500.png`` and passed to the loggers. Colours stay comparable from picture to
    picture (`ijepa.pictures.Colours`), also when the run is resumed, because checkpoints contain the reference.

    Args:
        data: the images.
        grid: rows and columns of patches.
        recorder: its clock excludes the time of pictures.
        folder: of the run.
        max_steps: length of the run.
        count: number of pictures, evenly spaced, the last one after the last step.
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
        self._fine_grid = pictures.fine_grid(grid, data.eval_transform.size[0])
        self._last_step = -1

    @property
    def state_key(self) -> str:
        """The key in checkpoints; the class once had this name."""
        return "Pictures"

    def state_dict(self) -> dict[str, Any]:
        return {"reference": self._colours.reference, "drawn": dict(self._drawn)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._colours.reference, self._drawn = state_dict["reference"], dict(state_dict["drawn"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._draw(trainer, pl_module)
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step != self._last_step and step in self.steps:
            self._draw(trainer, pl_module)
        self._last_step = step

    def progress(self) -> "Figure | None":
        """The pictures so far, side by side; None if there are fewer than two."""
        images = self._examples()[:SHOWN]
        drawn = {
            f"step {step:,}": colours.float() / 255
            for step, colours in sorted(self._drawn.items())
            if colours.shape[:2] == (len(images), math.prod(self._fine_grid))  # skips those of other images
        }
        return pictures.colours(images, drawn, self._fine_grid) if len(drawn) > 1 else None

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Every process encodes, because weights may be sharded; rank 0 draws."""
        images, step = self._examples(), trainer.global_step
        if not len(images):
            return
        assert isinstance(pl_module, TrainingModule)
        monitor = pl_module.monitor()
        assert isinstance(monitor, Monitor)
        # No inference mode: FSDP reuses its buffers in training. Eager mode: compiled blocks are not recompiled.
        with eval_mode(pl_module), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            features = torch.cat([monitor.features(batch).float().cpu() for batch in images.split(BATCH)])

            def finely(components: pictures.Components) -> Tensor:
                def embed(shifted: Tensor) -> list[Tensor]:
                    return [monitor.features(shifted).float().cpu()]

                return pictures.fine_scores(embed, images[:SHOWN], self.grid, [components])[0]

            colours = self._colours(features, finely)
        if trainer.is_global_zero:
            self._drawn[step] = (255 * colours).round().to(torch.uint8)
            figure = pictures.colours(images[:SHOWN], {f"step {step:,}": colours}, self._fine_grid)
            pictures.write(figure, self.folder.feature_picture(step))
            log_picture(trainer.loggers, "features", figure, step)
        self.recorder.restart_clock()

    def _examples(self) -> Tensor:
        if self._images is None:
            self._images = self.data.examples(PROJECTED)
        return self._images
