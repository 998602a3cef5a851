"""Few labels: logistic regression on frozen features of the labelled images, or the paper's fine-tuning.

Of the other training images only the labels are unknown, so features are standardised over all training images. The L2
penalty is chosen by cross-validation on the labelled images.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ijepa.config import Lowshot, LowshotFinetune
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import calibration, fewlabels, finetune, specs
from ijepa.evaluation.classifiers import ClassifierTask, Trained
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.logistic import IGNORED, fit, predict_logits, projection
from ijepa.evaluation.measures import MetricValue, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.randomness import Stream, shuffled

ConfigT = TypeVar("ConfigT", Lowshot, LowshotFinetune)
Score = Callable[[str, Tensor, str, int], tuple[MetricValue, list[float]]]
"""From label set, labelled rows, title and number of the draw to the accuracy and the chosen L2 penalties."""


class FewLabelsTask(ConfiguredTask[ConfigT]):
    """Top-1 accuracy on the validation images for each amount of labels, averaged over draws."""

    family: MetricSpec

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One metric per amount of labels."""
        return [self.family.instance(amount=text) for text, _ in fewlabels.amounts(self.config)]

    def validate(self, data: DataModule) -> None:
        """See `fewlabels.validate`."""
        fewlabels.validate(self.config, self.key, data.source.train)

    def over_draws(
        self, score: Score, title: str, ctx: EvalContext, train: Features, name: str, show_progress: bool
    ) -> TaskResult:
        """The results on label set ``name``: averages; each draw is in the details."""
        results: dict[str, MetricValue] = {}
        details: dict[str, Any] = {}
        for text, amount in fewlabels.amounts(self.config):
            metric = self.family.instance(amount=text).name
            scores, penalties, rows = [], list[float](), torch.empty(0)
            draws = fewlabels.draws(self.config, self.key, ctx, train, name, amount)
            draw_title = f"{title}: {text} of {name}"
            for draw, rows in enumerate(progress(draws, ctx.title(draw_title) if show_progress else "", len(draws))):
                result, chosen = score(name, rows, draw_title, draw)
                scores.append(result)
                penalties += chosen
            results[metric], details[metric] = fewlabels.mean_over_draws(scores, len(rows))
            details[metric] |= {"l2": penalties} if penalties else {}
        return TaskResult(results, details)


class LowshotTask(FewLabelsTask[Lowshot], ClassifierTask[Lowshot]):
    """Few labels: logistic regression on frozen features; keeps the classifiers of the most labels, first draw."""

    name = "lowshot"
    family = specs.LOWSHOT

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        probe = LowshotProbe(self.config, train, test, ctx.seed)
        best = dict[str, Fit]()

        def score(name: str, rows: Tensor, title: str, draw: int) -> tuple[MetricValue, list[float]]:
            fitted = probe.fit(name, rows)
            if draw == 0 and (name not in best or len(rows) > len(best[name].rows)):
                best[name] = fitted
            return fitted.result, [fitted.l2]

        found = {
            name: self.over_draws(score, model.name, ctx, train, name, show_progress=True) for name in train.labels
        }
        self.trained = Trained({}, {}, ctx.layers, {"chosen": {}})
        for name, fitted in best.items():
            labels = train.labels[name][fitted.rows]
            temperature = calibration.temperature(fitted.unseen[fitted.known], labels[fitted.known])
            head, chosen = probe.project.unprojected(fitted.weights), {"l2": fitted.l2, "images": len(labels)}
            self.trained.add(name, head, temperature, chosen)
            logits = predict_logits(fitted.weights, probe.test.values)
            calibrated = calibration.details(logits, test.labels[name], temperature)
            self.trained.record(name, fitted.result, len(logits), calibrated)
            found[name].details.update({"calibration": calibrated} if calibrated else {})
        return found

    @property
    def uncalibrated(self) -> str:
        """Why there is no temperature."""
        return f"fewer than {calibration.MIN_IMAGES} labels to calibrate by"


class LowshotFinetuneTask(FewLabelsTask[LowshotFinetune]):
    """Few labels: the whole encoder is fine-tuned; raw pixels are skipped."""

    name = "lowshot_finetune"
    family = specs.LOWSHOT_FINETUNE

    def validate(self, data: DataModule) -> None:
        """See `fewlabels.validate` and `finetune.validate_tuning`."""
        super().validate(data)
        finetune.validate_tuning(self.config, data, self.key)

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        if model.encoder is None:
            return {}
        train, test = ctx.features(model, 1, self.config.batch_size)

        def score(name: str, rows: Tensor, title: str, draw: int) -> tuple[MetricValue, list[float]]:
            labelled, draw_title = train.select_labels([name]), f"{title}, draw {draw + 1}"
            tuned = finetune.tune(self.config, model, ctx, labelled, test, rows, draw_title, draw)
            return tuned.results[name], []

        names = [name for name in self.config.labels or train.labels if name in train.labels]
        return {name: self.over_draws(score, model.name, ctx, train, name, show_progress=False) for name in names}


class LowshotProbe:
    """Logistic regression fitted to some rows of ``train`` and evaluated on ``test``."""

    def __init__(self, config: Lowshot, train: Features, test: Features, seed: int) -> None:
        self.project = projection(train.values, config.components, seed)
        self.config = config
        self.train = train._replace(values=self.project(train.values))
        self.test = test._replace(values=self.project(test.values))
        self.seed = seed

    def fit(self, name: str, rows: Tensor) -> "Fit":
        """Fits a classifier for label set ``name`` to ``rows``."""
        values, labels = self.train.values[rows], self.train.labels[name]
        l2, unseen, known = _choose_l2(self.config, values, labels[rows], self.seed)
        start = torch.zeros(values.shape[1] + 1, int(labels.max()) + 1)
        weights = fit(values, {name: labels[rows]}, {name: l2}, {name: start}, self.config.max_iterations)[name]
        classes = predict_logits(weights, self.test.values).argmax(dim=1)
        return Fit(accuracy(classes, self.test.labels[name]), l2, rows, weights, unseen, known)


class Fit(NamedTuple):
    """A classifier fitted to a few labelled images.

    result: top-1 accuracy; l2: the chosen penalty; rows: the labelled images; weights: of projected features.
    unseen: [m, K] logits of the labelled images by classifiers that were not fitted to them.
    known: [m] whether these classifiers knew the image's class.
    """

    result: MetricValue
    l2: float
    rows: Tensor
    weights: Tensor
    unseen: Tensor
    known: Tensor


def _choose_l2(config: Lowshot, values: Tensor, labels: Tensor, seed: int) -> tuple[float, Tensor, Tensor]:
    """The L2 penalty with the most correct predictions in cross-validation; of equal ones, the strongest.

    Also its logits [m, K] in cross-validation, and [m] whether an image's class occurs in another fold.

    Each fold is fitted as a label set in which its held-out images have the label `IGNORED`, so all folds are fitted at
    once. A class with a single image is never predicted for it, whatever the penalty.
    """
    folds = min(config.folds, len(labels))
    fold = torch.from_numpy(np.argsort(shuffled(seed, Stream.FOLDS, 0, len(labels)))) % folds
    fold_labels = {str(i): torch.where(fold == i, IGNORED, labels) for i in range(folds)}
    weights = {name: torch.zeros(values.shape[1] + 1, int(labels.max()) + 1) for name in fold_labels}
    best, chosen, logits = -1, config.l2[0], torch.empty(0)
    for l2 in sorted(config.l2, reverse=True):
        weights = fit(values, fold_labels, dict.fromkeys(fold_labels, l2), weights, config.max_iterations)
        unseen = torch.empty(len(labels), weights["0"].shape[1])
        for i in range(folds):
            unseen[fold == i] = predict_logits(weights[str(i)], values[fold == i])
        correct = int((unseen.argmax(dim=1) == labels).sum())
        if correct > best:
            best, chosen, logits = correct, l2, unseen
    known = torch.stack([((labels == label) & (fold != own)).any() for label, own in zip(labels, fold, strict=True)])
    return chosen, logits, known
