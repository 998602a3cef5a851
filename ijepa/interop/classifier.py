"""An encoder with trained classifiers of images, their classes and all that is needed to predict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ijepa.data.decode import Picture, read_picture
from ijepa.data.images import EvalTransform
from ijepa.data.limits import MAX_DEVIATIONS, ValueLimit
from ijepa.interop.weights import Which
from ijepa.models.attentive import AttentiveProbe
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.util.errors import UserError


@dataclass(frozen=True)
class LabelSet:
    """What a head distinguishes.

    Attributes:
        classes: names, in the order of the logits.
        temperature: divides the logits, so that probabilities are calibrated; None: they are not calibrated.
    """

    classes: list[str]
    temperature: float | None = None


class Prediction(NamedTuple):
    """The most likely class of an image, its probability, and the probabilities of all classes by name."""

    name: str
    probability: float
    probabilities: dict[str, float]


@dataclass
class Description:
    """Everything but the weights.

    Attributes:
        label_sets: by name.
        size, crop, stretch: how images are transformed, see `EvalTransform`.
        layers: features are those of the last ``layers`` blocks; an attentive probe takes the last only.
        max_pixels: images with more pixels are not decoded; None: no limit.
        max_deviations: float images with values further from the encoder's mean, in standard deviations, are refused.
        facts: how the heads were trained and how good they are; for people, not used.
    """

    label_sets: dict[str, LabelSet]
    size: tuple[int, int]
    crop: float = 1.0
    stretch: bool = False
    layers: int = 1
    max_pixels: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    max_deviations: float = MAX_DEVIATIONS


Head = nn.Linear | AttentiveProbe
"""A classifier of average-pooled features [B, D * layers], or of patch features [B, N, D]: logits [B, K]."""


class ImageClassifier(nn.Module):
    """An encoder and a classifier of its features for each label set; `predict` takes files.

    Args:
        encoder: computes the features.
        heads: by label set.
        description: of the heads.
        which: which encoder of a run it is.
    """

    def __init__(
        self, encoder: PretrainedEncoder, heads: Mapping[str, Head], description: Description, which: Which = "target"
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads.values())
        self.description = description
        self.which = which
        channels = encoder.spec.channels
        self.transform = EvalTransform(description.size, description.crop, channels, description.stretch)
        self.eval()

    @property
    def value_limit(self) -> ValueLimit:
        """How far the values of float images may be from the encoder's mean."""
        return ValueLimit.of_encoder(self.encoder.spec.mean, self.encoder.spec.std, self.description.max_deviations)

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by label set."""
        return {name: labels.classes for name, labels in self.description.label_sets.items()}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [B, K] by label set, divided by their temperature, of images [B, C, H, W] from `transform`."""
        return self.logits(self.encoder(images, last=self.description.layers))

    def logits(self, patches: Tensor) -> dict[str, Tensor]:
        """The same from patch features [B, N, D * layers]."""
        pooled = patches.mean(dim=1)
        logits = {}
        for (name, labels), head in zip(self.description.label_sets.items(), self.heads, strict=True):
            values = head(patches if isinstance(head, AttentiveProbe) else pooled)
            logits[name] = values / (labels.temperature or 1.0)
        return logits

    @torch.inference_mode()
    def predict(
        self, images: Iterable[str | Path | Picture] | str | Path, label_set: str | None = None, batch_size: int = 64
    ) -> list[Prediction]:
        """The class of each image.

        Args:
            images: files, PIL images, or tensors [C, H, W], uint8 or in 0..1; or a single file.
            label_set: which classes to choose from; needed if there are several label sets.
            batch_size: images per forward pass.

        Raises:
            UserError: if a file cannot be read, or there is no such label set.
        """
        name = self._label_set(label_set)
        classes = self.classes[name]
        predictions: list[Prediction] = []
        batch: list[Tensor] = []
        device = next(self.parameters()).device

        def flush() -> None:
            if not batch:
                return
            for values in self(torch.stack(batch).to(device))[name].softmax(dim=1).tolist():
                best = max(range(len(values)), key=values.__getitem__)
                predictions.append(Prediction(classes[best], values[best], dict(zip(classes, values, strict=True))))
            batch.clear()

        for image in [images] if isinstance(images, str | Path) else images:
            picture = read_picture(image, self.encoder.spec.channels, self.description.max_pixels, self.value_limit)
            batch.append(self.transform(picture))
            if len(batch) == batch_size:
                flush()
        flush()
        return predictions

    def _label_set(self, name: str | None) -> str:
        names = list(self.classes)
        if name is None and len(names) == 1:
            return names[0]
        if name not in self.classes:
            raise UserError(f"label_set={name}: give one of {', '.join(names)}")
        return name


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with this weight [K, D] and bias [K]."""
    head = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head


def names_of(classes: Sequence[str] | None, count: int) -> list[str]:
    """The first ``count`` class names, each once: a second one gets its number; only numbers if there are none."""
    names = list(classes[:count]) if classes else [str(number) for number in range(count)]
    return [f"{name} ({number})" if name in names[:number] else name for number, name in enumerate(names)]
