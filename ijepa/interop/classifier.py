"""classifier.safetensors: an encoder with trained classifiers, their classes and all that is needed to predict."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from ijepa.data.decode import Picture, decode
from ijepa.data.images import EvalTransform
from ijepa.interop import native, timm
from ijepa.interop.loading import build_encoder
from ijepa.interop.reading import read_safetensors
from ijepa.interop.weights import SPEC_KEY
from ijepa.models.attentive import AttentiveProbe
from ijepa.models.pretrained import PretrainedEncoder
from ijepa.run_folder import RunFolder
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.files import write_safetensors

FILE = "classifier.safetensors"
KEY = "ijepa_classifier"
"""Metadata key of the classifiers' description."""
LINEAR, ATTENTIVE = "linear", "attentive"
"""Kinds of heads."""


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
        facts: how the heads were trained and how good they are; for people, not used.
    """

    label_sets: dict[str, LabelSet]
    size: tuple[int, int]
    crop: float = 1.0
    stretch: bool = False
    layers: int = 1
    max_pixels: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)


Head = nn.Linear | AttentiveProbe
"""A classifier of average-pooled features [B, D * layers], or of patch features [B, N, D]: logits [B, K]."""


class ImageClassifier(nn.Module):
    """An encoder and a classifier of its features for each label set; `predict` takes files.

    Args:
        encoder: computes the features.
        heads: by label set.
        description: of the heads.
    """

    def __init__(self, encoder: PretrainedEncoder, heads: Mapping[str, Head], description: Description) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads.values())
        self.description = description
        channels = encoder.spec.channels
        self.transform = EvalTransform(description.size, description.crop, channels, description.stretch)
        self.eval()

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
            batch.append(self.transform(self._read(image)))
            if len(batch) == batch_size:
                flush()
        flush()
        return predictions

    def _read(self, image: str | Path | Picture) -> Picture:
        if isinstance(image, Image.Image | Tensor):
            return image
        try:
            return decode(str(image), self.encoder.spec.channels, self.description.max_pixels)
        except Exception as error:  # damaged files make decoders raise anything
            raise UserError(f"{image}: cannot be read as an image ({error})") from None

    def _label_set(self, name: str | None) -> str:
        names = list(self.classes)
        if name is None and len(names) == 1:
            return names[0]
        if name not in self.classes:
            raise UserError(f"label_set={name}: give one of {', '.join(names)}")
        return name


def write_classifier(path: Path, classifier: ImageClassifier, which: str) -> None:
    """Writes a classifier atomically; the encoder in it can be loaded from the file, too.

    Args:
        path: the file.
        classifier: what is written.
        which: which encoder it has: ``target`` or ``context``.
    """
    spec, description = classifier.encoder.spec, classifier.description
    state = timm.to_timm(classifier.encoder.encoder)
    for number, head in enumerate(classifier.heads):
        state |= {
            f"{timm.CLASSIFIER}{number}.{name}": value.detach().cpu() for name, value in head.state_dict().items()
        }
    sets = {
        name: {"classes": labels.classes, "temperature": labels.temperature, "head": _kind(head)}
        for (name, labels), head in zip(description.label_sets.items(), classifier.heads, strict=True)
    }
    plain = {"label_sets": sets, "size": description.size, "crop": description.crop, "stretch": description.stretch,
             "layers": description.layers, "max_pixels": description.max_pixels,
             "facts": description.facts}  # fmt: skip
    metadata = {SPEC_KEY: json.dumps({**spec.plain(), "encoder": which}), KEY: json.dumps(plain), "format": "pt"}
    write_safetensors(path, {name: tensor.contiguous() for name, tensor in state.items()}, metadata)


def load_classifier(path: str | Path) -> ImageClassifier:
    """Loads a classifier that an evaluation has left, in eval mode.

    Args:
        path: ``classifier.safetensors``, the folder that contains it, or the folder of a run with one evaluation.

    Raises:
        UserError: if the file is missing, or does not contain a classifier.
    """
    file = find_classifier(path)
    try:
        metadata, state = read_safetensors(file)
        if KEY not in metadata:
            raise ValueError(f"holds no classifier; give a {FILE}")
        values = json.loads(metadata[KEY])
        description = _described(values)
        which = native.read_description(metadata)["encoder"]
        weights = native.read_export(metadata, state)
        pretrained = build_encoder(weights, file, which, weights.spec.positions)
        kinds = [labels.get("head", LINEAR) for labels in values["label_sets"].values()]
        heads = _heads(state, description, kinds, pretrained)
    except ConfigError as error:
        raise UserError(f"{file}: {error.problem}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # edited by hand, it can be anything
        raise UserError(f"{file}: {error}") from None
    return ImageClassifier(pretrained, heads, description)


def holds_classifier(file: Path) -> bool:
    """Whether a file is a classifier's."""
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    try:
        return KEY in read_safetensors(file)[0]
    except ValueError:
        return False


def find_classifier(path: str | Path) -> Path:
    """The file that `load_classifier` reads.

    Raises:
        UserError: if there is none, or more than one.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        pattern = FILE.replace(".", "*.")
        found = sorted(file.glob(pattern)) or sorted(RunFolder(file).evaluations.glob(f"*/{pattern}"))
        if len(found) > 1:
            names = [str(each.relative_to(file)) for each in found]
            raise UserError(f"{file}: holds {', '.join(names)}; give one of these files")
        file = found[0] if found else file / FILE
    if not file.is_file():
        problem = f"no such file; python evaluate.py checkpoint=RUN_DIR task=logistic leaves a {FILE} in its output"
        raise UserError(f"{file}: {problem}")
    return file


def _described(values: dict[str, Any]) -> Description:
    sets = {
        name: LabelSet(list(labels["classes"]), labels["temperature"]) for name, labels in values["label_sets"].items()
    }
    height, width = values["size"]
    rest = (values[name] for name in ("crop", "stretch", "layers", "max_pixels", "facts"))
    return Description(sets, (height, width), *rest)


def _heads(
    state: dict[str, Tensor], description: Description, kinds: list[str], encoder: PretrainedEncoder
) -> dict[str, Head]:
    heads: dict[str, Head] = {}
    for number, ((name, labels), kind) in enumerate(zip(description.label_sets.items(), kinds, strict=True)):
        if kind not in (LINEAR, ATTENTIVE):
            raise ValueError(f"its classifier of {name} is of an unknown kind, {kind}")
        width, count = encoder.spec.width, len(labels.classes)
        head: Head = nn.Linear(width * description.layers, count)
        if kind == ATTENTIVE:
            head = AttentiveProbe(width, encoder.spec.heads, count)
        prefix = f"{timm.CLASSIFIER}{number}."
        own = {part.removeprefix(prefix): value for part, value in state.items() if part.startswith(prefix)}
        try:
            head.load_state_dict(own)
        except RuntimeError:
            raise ValueError(f"its classifier of {name} does not match its description") from None
        heads[name] = head
    return heads


def _kind(head: nn.Module) -> str:
    return ATTENTIVE if isinstance(head, AttentiveProbe) else LINEAR


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
