"""Exports of classifiers: ONNX and torch.export hold any, timm and transformers linear ones of the last block."""

import json
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from ijepa.interop import programs, timm, transformers
from ijepa.interop.classifier import ImageClassifier, linear
from ijepa.models.encoder import Encoder
from ijepa.util.errors import ConfigError

PROGRAMS = {"onnx": programs.write_onnx, "torch-export": programs.write_program}
FORMATS = (*PROGRAMS, "timm", "transformers")
"""Formats that can hold a classifier; the others hold its encoder."""
PROBABILITIES = "probabilities"


class Probabilities(nn.Module):
    """Maps images [B, C, H, W] in 0..1 to calibrated probabilities [B, K], a tuple of them for several label sets."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = tuple(logits.softmax(dim=1) for logits in self.classifier(images).values())
        return found[0] if len(found) == 1 else found


def output_names(classifier: ImageClassifier) -> list[str]:
    """The names of a program's outputs: one for each label set."""
    names = list(classifier.classes)
    return [PROBABILITIES] if len(names) == 1 else [f"{name}_{PROBABILITIES}" for name in names]


def write(to: str, out: Path, classifier: ImageClassifier) -> tuple[list[Path], list[str]]:
    """Writes a classifier in one of `FORMATS`; returns the written paths, and notes for the user.

    Raises:
        ConfigError: if the format cannot express it.
    """
    if to in PROGRAMS:
        return _write_program(to, out, classifier), []
    head = single_linear_head(to, classifier)
    spec, encoder = classifier.encoder.spec, classifier.encoder.encoder
    if to == "timm":
        timm.write(out, encoder, spec, classifier.which, {PROBABILITIES: head})
        return [out], []
    (names,) = classifier.classes.values()
    reason = transformers.write(out, cast(Encoder, encoder), spec, classifier.which, transformers.Classes(head, names))
    files = [transformers.CONFIG, transformers.WEIGHTS, *([] if reason else [transformers.PROCESSOR])]
    notes = [reason] if reason else []
    if not reason and not classifier.description.stretch:
        notes.append("its image processor stretches images that are not square; here they are cropped")
    return [out / name for name in files], notes


def single_linear_head(to: str, classifier: ImageClassifier) -> nn.Linear:
    """The classifier's only head, with its temperature folded in, for formats that pool the last block's patches.

    Raises:
        ConfigError: if there are several label sets, or a head of another kind, layers or size.
    """
    spec, description = classifier.encoder.spec, classifier.description
    head = classifier.heads[0]
    problem = None
    if len(classifier.heads) > 1:
        problem = f"holds one set of classes, not {', '.join(classifier.classes)}"
    elif not isinstance(head, nn.Linear):
        problem = "cannot hold an attentive probe"
    elif description.layers > 1:
        problem = f"pools the last block, and the classifier {description.layers}"
    elif spec.kind != "vit":
        problem = f"cannot hold a classifier on {spec.name}"
    elif to == "transformers" and spec.registers:
        problem = f"has no register tokens, and the encoder has {spec.registers}"
    elif description.size != spec.image_size:
        size, own = ("x".join(map(str, sides)) for sides in (description.size, spec.image_size))
        problem = f"takes images of the encoder's size, {own}, and the classifier those of {size}"
    if problem:
        raise ConfigError("--to", to, f"{problem}; try --to onnx")
    assert isinstance(head, nn.Linear)
    (labels,) = description.label_sets.values()
    temperature = labels.temperature or 1.0
    return linear(head.weight / temperature, head.bias / temperature)


def _write_program(to: str, out: Path, classifier: ImageClassifier) -> list[Path]:
    description = classifier.description
    shape = classifier.encoder.spec.channels, *description.size
    metadata = {"classes": json.dumps(classifier.classes)}
    exportable = programs.Exportable(Probabilities(classifier), shape, tuple(output_names(classifier)), metadata)
    try:
        return PROGRAMS[to](out, exportable)
    except programs.ProgramError as fault:
        raise ConfigError("--to", to, str(fault)) from None
