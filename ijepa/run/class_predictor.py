"""Predicts the classes of images."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ijepa.config import PredictConfig
from ijepa.data.datamodule import EvalImages
from ijepa.data.files import Files
from ijepa.evaluation.runtime import Runtime
from ijepa.interop.classifier import ImageClassifier
from ijepa.interop.classifier_files import load_classifier
from ijepa.run.image_predictor import ImagePredictor
from ijepa.util.errors import ConfigError, UserError
from ijepa.util.rows import Row


class ClassPredictor(ImagePredictor):
    """The most likely class of each label set, and its probability."""

    default_output = "predictions.csv"

    def __init__(self, config: PredictConfig, file: Path) -> None:
        super().__init__(file)
        self.every_class = config.probabilities
        self.classifier: ImageClassifier = load_classifier(file)
        self.encoder = self.classifier.encoder
        self.layers, self.max_pixels = self.classifier.description.layers, self.classifier.description.max_pixels
        self.value_limit = self.classifier.value_limit
        self.names = self._label_sets(config)
        self.sizes = [len(self.classifier.classes[name]) for name in self.names]
        self.described = ", ".join(
            f"{name} ({size} classes)" for name, size in zip(self.names, self.sizes, strict=True)
        )
        self.columns = self._columns()

    def table(self, output: Path) -> Path:
        if output.is_dir():
            raise ConfigError("output", output, "is a folder; give a file in it")
        return output

    def dataset(self, images: Files) -> Dataset[Any]:
        return EvalImages(images, self.classifier.transform, self.encoder.spec.channels)

    def prepare(self, runtime: Runtime, images: Files, root: Path) -> None:
        self.embed, self.device = runtime.patches(self.encoder, self.layers), runtime.device
        self.classifier.to(runtime.device)

    def predict(self, batch: Any, indices: list[int]) -> tuple[Tensor, Tensor]:
        pixels, flags = batch
        readable = flags.bool()
        if not readable.any():
            return readable, torch.empty(0, sum(self.sizes))
        logits = self.classifier.logits(self.embed(pixels[readable].to(self.device)))
        values = torch.cat([logits[name].softmax(dim=1) for name in self.names], dim=1).cpu()
        if not values.isfinite().all():
            raise UserError(f"{self.file}: its probabilities are not finite; the weights are damaged")
        return readable, values

    def rows(self, values: Tensor, indices: list[int]) -> Iterable[Row]:
        parts = values.view(len(indices), -1).split(self.sizes, dim=1)
        best = [part.max(dim=1) for part in parts]
        for row in range(len(indices)):
            cells: list[str | float] = []
            for name, part, (probability, choice) in zip(self.names, parts, best, strict=True):
                cells += [self.classifier.classes[name][int(choice[row])], float(probability[row])]
                cells += part[row].tolist() if self.every_class else []
            yield cells

    def _label_sets(self, config: PredictConfig) -> list[str]:
        names = list(self.classifier.classes)
        for name in config.labels or []:
            if name not in names:
                raise ConfigError("labels", config.labels, f"the classifier has {', '.join(names)}")
        return config.labels or names

    def _columns(self) -> dict[str, bool]:
        columns: list[tuple[str, bool]] = []
        for name in self.names:
            prefix = f"{name}_" if len(self.names) > 1 else ""
            columns += [(name, False), (f"{prefix}probability", True)]
            labels = self.classifier.classes[name] if self.every_class else []
            columns += [(f"{prefix}probability_{label}", True) for label in labels]
        all_names = ["file", *(name for name, _ in columns), "error"]
        for name in all_names:
            if all_names.count(name) > 1:
                problem = f"two columns would be named {name}; predict other label sets, one by one"
                raise ConfigError("labels", self.names, problem)
        return dict(columns)
