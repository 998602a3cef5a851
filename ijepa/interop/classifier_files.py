"""classifier.safetensors: files of `ImageClassifier`s."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ijepa.config.trust import UntrustedError, trusting
from ijepa.interop.classifier import Description, Head, ImageClassifier, LabelSet
from ijepa.interop.heads_file import CLASSIFIER, HeadsFile, find_heads, read_heads, stored_deviations, write_heads
from ijepa.models.attentive import AttentiveProbe
from ijepa.util.errors import UserError

FILE = "classifier.safetensors"
LINEAR, ATTENTIVE = "linear", "attentive"
"""Kinds of heads."""


def write_classifier(path: Path, classifier: ImageClassifier) -> None:
    """Writes a classifier atomically; the encoder in it can be loaded from the file, too.

    Args:
        path: the file.
        classifier: what is written.
    """
    description = classifier.description
    sets = {
        name: {"classes": labels.classes, "temperature": labels.temperature, "head": _kind(head)}
        for (name, labels), head in zip(description.label_sets.items(), classifier.heads, strict=True)
    }
    plain = {"label_sets": sets, "size": description.size, "crop": description.crop, "stretch": description.stretch,
             "layers": description.layers, "max_pixels": description.max_pixels,
             "max_deviations": description.max_deviations, "facts": description.facts}  # fmt: skip
    write_heads(path, CLASSIFIER, classifier.encoder, classifier.which, list(classifier.heads), plain)


def load_classifier(path: str | Path, trust: str | Sequence[str] = ()) -> ImageClassifier:
    """Loads a classifier that an evaluation has left, in eval mode.

    Args:
        path: ``classifier.safetensors``, the folder that contains it, or the folder of a run with one evaluation.
        trust: see `ijepa.load_encoder`.

    Raises:
        UserError: if the file is missing, or does not contain a classifier.
    """
    file = find_heads(path, [CLASSIFIER])
    try:
        with trusting(trust):
            found = read_heads(file, CLASSIFIER)
        description = _described(found.description)
        kinds = [labels.get("head", LINEAR) for labels in found.description["label_sets"].values()]
        heads = _heads(found, description, kinds)
    except UntrustedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # edited by hand, it can be anything
        raise UserError(f"{file}: {error}") from None
    return ImageClassifier(found.encoder, heads, description, found.which)


def _described(values: dict[str, Any]) -> Description:
    """The description in a file; raises ValueError, KeyError, TypeError or AttributeError if it is not one."""
    sets = {
        name: LabelSet([str(label) for label in labels["classes"]], labels["temperature"])
        for name, labels in values["label_sets"].items()
    }
    height, width = values["size"]
    crop, layers, facts = float(values["crop"]), values["layers"], dict(values["facts"])
    if not sets or not all(labels.classes for labels in sets.values()):
        raise ValueError("it has no classes")
    temperatures = [labels.temperature for labels in sets.values() if labels.temperature is not None]
    positive = [crop, layers, height, width, *temperatures]
    if not all(isinstance(value, int | float) and 0 < value < math.inf for value in positive):
        raise ValueError("its sizes and temperatures should be positive numbers")
    if any(not isinstance(value, int) for value in (layers, height, width)):
        raise ValueError("its sizes should be whole numbers")
    return Description(
        sets, (height, width), crop, bool(values["stretch"]), layers, values["max_pixels"], facts,
        stored_deviations(values),
    )  # fmt: skip


def _heads(found: HeadsFile, description: Description, kinds: list[str]) -> dict[str, Head]:
    heads: dict[str, Head] = {}
    spec = found.encoder.spec
    states = zip(description.label_sets.items(), kinds, found.heads, strict=True)
    for (name, labels), kind, state in states:
        if kind not in (LINEAR, ATTENTIVE):
            raise ValueError(f"its classifier of {name} is of an unknown kind, {kind}")
        count = len(labels.classes)
        head: Head = nn.Linear(spec.width * description.layers, count)
        if kind == ATTENTIVE:
            head = AttentiveProbe(spec.width, spec.heads, count)
        try:
            head.load_state_dict(state)
        except RuntimeError:
            raise ValueError(f"its classifier of {name} does not match its description") from None
        heads[name] = head
    return heads


def _kind(head: nn.Module) -> str:
    return ATTENTIVE if isinstance(head, AttentiveProbe) else LINEAR
