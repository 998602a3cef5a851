"""What evaluation tasks train is kept as a file that can be used: `ijepa.load_classifier`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ijepa.evaluation import calibration
from ijepa.evaluation.context import EvalContext, EvaluatedModel
from ijepa.evaluation.measures import MetricValue
from ijepa.evaluation.task import ConfigT, ConfiguredTask
from ijepa.interop.classifier import Description, Head, ImageClassifier, LabelSet, names_of
from ijepa.interop.classifier_files import write_classifier
from ijepa.models.attentive import AttentiveProbe
from ijepa.models.pretrained import PretrainedEncoder


@dataclass
class Trained:
    """Classifiers that a task has trained on an encoder's features.

    Attributes:
        heads: by label set.
        temperatures: by label set, see `calibration.temperature`; None: not calibrated.
        layers: linear heads take the average-pooled features of the last ``layers`` blocks.
        facts: how they were trained, for metadata.
        encoder: the encoder, if the task has trained it, too; None: that of the evaluated model.
    """

    heads: dict[str, Head]
    temperatures: dict[str, float | None]
    layers: int
    facts: dict[str, Any]
    encoder: PretrainedEncoder | None = None

    def add(self, name: str, head: Head, temperature: float | None, chosen: Any) -> None:
        """Adds the head of label set ``name``; ``chosen``: its hyperparameters, among the facts."""
        self.heads[name], self.temperatures[name], self.facts["chosen"][name] = head, temperature, chosen

    def record(self, name: str, result: MetricValue, images: int, details: dict[str, Any] | None) -> None:
        """Adds what was measured on validation images to the facts: accuracy, and calibration from ``details``."""
        calibrated = {key: value for key, value in (details or {}).items() if key in ("ece", "ece_calibrated")}
        self.facts.setdefault("validation", {})[name] = {"images": images, "accuracy": result.value, **calibrated}


class ClassifierTask(ConfiguredTask[ConfigT]):
    """A task that trains classifiers and writes them, so that they can be used.

    ``trained``: the classifiers of the model that was evaluated last; None: there are none.
    """

    trained: Trained | None = None

    def write(self, model: EvaluatedModel, ctx: EvalContext, folder: Path) -> list[Path]:
        """Writes the classifiers, not those of baselines."""
        if model.baseline or model.encoder is None or not ctx.write_models or self.trained is None:
            return []
        for name, temperature in self.trained.temperatures.items():
            if temperature is None:
                print(f"{self.name:<8} {name}: {self.uncalibrated}, so probabilities are not calibrated")
        encoder = self.trained.encoder or model.encoder
        path = folder / ctx.classifier_file(self.name)
        facts = {"task": self.name, **self.trained.facts}
        try:
            write_classifier(path, build_classifier(self.trained, encoder, ctx, facts))
        except OSError as error:  # a full disk must not end the evaluation
            print(f"{self.name:<8} the classifier is not written: {path}: {error.strerror}")
            return []
        return [path]

    @property
    def uncalibrated(self) -> str:
        """Why there is no temperature."""
        return f"fewer than {calibration.MIN_IMAGES} held-out training images"


def build_classifier(
    trained: Trained, encoder: PretrainedEncoder, ctx: EvalContext, facts: dict[str, Any]
) -> ImageClassifier:
    """The classifier, with class names and transform of ``ctx``."""
    source, transform = ctx.data.source, ctx.data.eval_transform
    sets = {
        name: LabelSet(names_of(source.classes.get(name), _classes(head)), trained.temperatures[name])
        for name, head in trained.heads.items()
    }
    shape = transform.size, transform.crop, transform.stretch
    description = Description(sets, *shape, trained.layers, ctx.max_pixels, facts, ctx.max_deviations)
    return ImageClassifier(encoder, trained.heads, description, ctx.encoder)


def _classes(head: Head) -> int:
    return head.head.out_features if isinstance(head, AttentiveProbe) else head.out_features
