"""classifier.safetensors: files of `ImageClassifier`s."""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ijepa.interop import native, timm
from ijepa.interop.classifier import Description, Head, ImageClassifier, LabelSet
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


def write_classifier(path: Path, classifier: ImageClassifier) -> None:
    """Writes a classifier atomically; the encoder in it can be loaded from the file, too.

    Args:
        path: the file.
        classifier: what is written.
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
    metadata = {
        SPEC_KEY: json.dumps({**spec.plain(), "encoder": classifier.which}),
        KEY: json.dumps(plain),
        "format": "pt",
    }
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
    return ImageClassifier(pretrained, heads, description, which)


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
    return Description(sets, (height, width), crop, bool(values["stretch"]), layers, values["max_pixels"], facts)


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
