"""A second LightningModule, and a command that trains it: ``python tests/autoencoder.py [key=value ...]``, as train.py.

Only its patch size and width are read of what is I-JEPA's in the configuration; it draws no masks.
"""

import math
import os
import signal

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F

from ijepa.cli import entry
from ijepa.data import sources
from ijepa.run import build, runs
from ijepa.run.assembly import assemble
from ijepa.training.base import TrainingModule
from ijepa.training.protocol import Monitor, MonitorFlops
from ijepa.training.schedule import TrainingSchedule, training_schedule


class Autoencoder(TrainingModule):
    """Patches of pixels through a narrow linear layer and back; squared error."""

    def __init__(self, image_size, channels, patch_size, width, schedule, betas, eps):
        super().__init__(schedule, betas, eps)
        self.grid = tuple(side // patch_size for side in image_size)
        self.patch_size = patch_size
        self.encoder = nn.Linear(channels * patch_size**2, width)
        self.decoder = nn.Linear(width, channels * patch_size**2)

    def training_step(self, batch, batch_idx):
        patches = self.patches(batch.images.float() / 255)
        loss = F.mse_loss(self.decoder(self.encoder(patches)).float(), patches)  # the decoder may be bf16
        return {"loss": loss, "parts": {"total": loss.detach()}}

    def patches(self, images):
        return F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)  # [B, N, C * P * P]

    def flops(self, batch):
        return 5 * len(batch.images) * Watched(self).flops(None).features

    def monitor(self):
        return Watched(self)

    def exports(self):
        return {"autoencoder": self}


class Watched(Monitor):
    """The narrow layer."""

    def __init__(self, module):
        self.module = module
        self.grid = module.grid

    def features(self, images):
        return self.module.encoder(self.module.patches(images.to(self.module.device)))

    def flops(self, masks):
        return MonitorFlops(2.0 * math.prod(self.grid) * self.module.encoder.weight.numel())


class Stop(L.Callback):
    """SIGTERM to this process after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step and trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGTERM)


def wire(config, folder, step):
    source = sources.build(config.data, config.seed)
    images, batch_size = len(source.train), config.data.batch_size
    schedule = training_schedule(config.schedule, config.optimizer, batch_size, images, TrainingSchedule)
    torch.manual_seed(config.seed)
    module = Autoencoder(config.data.image_size, config.data.channels, config.model.patch_size, config.model.width,
                         schedule, config.optimizer.betas, config.optimizer.eps)  # fmt: skip
    data = build.data(config.data, source, None, schedule.max_steps, config.hardware, config.seed)
    run = assemble(config, folder, module, data, step)
    if "STOP_AFTER" in os.environ:
        run.trainer.callbacks.insert(0, Stop(int(os.environ["STOP_AFTER"])))
    return run


if __name__ == "__main__":
    entry.main("train", lambda composed: runs.train(composed, wire))
