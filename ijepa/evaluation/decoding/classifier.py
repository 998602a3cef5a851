"""A small convolutional network that reads the class of a block's object; no decoder is trained with it."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.util.randomness import Stream, seed_of, shuffled

WIDTHS = (32, 64, 128)
BATCH = 128
LR = 2e-3


class BlockClassifier(nn.Module):
    """Three stages of two convolutions each; every stage halves the resolution.

    Args:
        mean: [C, 1, 1], of the pictures' values.
        std: [C, 1, 1], likewise.
        classes: their number.
    """

    mean: Tensor
    std: Tensor
    num_features = WIDTHS[-1]
    """As torchmetrics' FrechetInceptionDistance expects it."""

    def __init__(self, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        layers: list[nn.Module] = []
        width = len(mean)
        for out in WIDTHS:
            for stride in (1, 2):
                layers += [nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
                width = out
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features [n, 128] of pictures [n, C, S, S] in 0..1."""
        features: Tensor = self.layers((pictures - self.mean) / self.std)
        return features.mean(dim=(2, 3))

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """As `forward`, in parts."""
        return torch.cat([self(part) for part in pictures.split(8 * BATCH)])

    @torch.no_grad()
    def predict(self, pictures: Tensor) -> Tensor:
        """The most probable class of each picture: [n]."""
        predicted: Tensor = self.head(self.features(pictures)).argmax(dim=1)
        return predicted


def train(pictures: Tensor, labels: Tensor, mean: Tensor, std: Tensor, epochs: int, seed: int) -> BlockClassifier:
    """A classifier of ``pictures`` [n, C, S, S] with ``labels`` [n]; AdamW, one cycle of the learning rate."""
    steps_per_epoch = math.ceil(len(pictures) / BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, Stream.BLOCK_CLASSIFIER, 0, 0))
        network = BlockClassifier(mean, std, int(labels.max()) + 1)
    network = network.to(pictures.device)
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=epochs * steps_per_epoch)
    for epoch in range(epochs):
        order = torch.from_numpy(np.asarray(shuffled(seed, Stream.BLOCK_CLASSIFIER, epoch, len(pictures))))
        for rows in order.to(pictures.device).tensor_split(steps_per_epoch):
            loss = F.cross_entropy(network.head(network(pictures[rows])), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval().requires_grad_(False)
