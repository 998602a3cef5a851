"""Few labels: logistic regression on frozen features of the labelled images, or the paper's fine-tuning.

Of the other training images only the labels are unknown, so features are standardised over all training images. The L2
penalty is chosen by cross-validation on the labelled images.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ijepa.config import Lowshot, LowshotFinetune
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import fewlabels, finetune, specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.logistic import IGNORED, fit, predict, projection
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


class LowshotTask(FewLabelsTask[Lowshot]):
    """Few labels: logistic regression on frozen features."""

    name = "lowshot"
    family = specs.LOWSHOT

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        probe = LowshotProbe(self.config, train, test, ctx.seed)

        def score(name: str, rows: Tensor, title: str, draw: int) -> tuple[MetricValue, list[float]]:
            result, l2 = probe.score(name, rows)
            return result, [l2]

        return {name: self.over_draws(score, model.name, ctx, train, name, show_progress=True) for name in train.labels}


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
        project = projection(train.values, config.components, seed)
        self.config = config
        self.train = train._replace(values=project(train.values))
        self.test = test._replace(values=project(test.values))
        self.seed = seed

    def score(self, name: str, rows: Tensor) -> tuple[MetricValue, float]:
        """Top-1 accuracy on label set ``name`` of the classifier fitted to ``rows``, and the chosen L2 penalty."""
        values, labels = self.train.values[rows], self.train.labels[name]
        l2 = _choose_l2(self.config, values, labels[rows], self.seed)
        start = torch.zeros(values.shape[1] + 1, int(labels.max()) + 1)
        weights = fit(values, {name: labels[rows]}, {name: l2}, {name: start}, self.config.max_iterations)
        return accuracy(predict(weights, self.test.values)[name], self.test.labels[name]), l2


def _choose_l2(config: Lowshot, values: Tensor, labels: Tensor, seed: int) -> float:
    """The L2 penalty with the most correct predictions in cross-validation; of equal ones, the strongest.

    Each fold is fitted as a label set in which its held-out images have the label `IGNORED`, so all folds are fitted at
    once. A class with a single image is never predicted for it, whatever the penalty.
    """
    folds = min(config.folds, len(labels))
    fold = torch.from_numpy(np.argsort(shuffled(seed, Stream.FOLDS, 0, len(labels)))) % folds
    fold_labels = {str(i): torch.where(fold == i, IGNORED, labels) for i in range(folds)}
    weights = {name: torch.zeros(values.shape[1] + 1, int(labels.max()) + 1) for name in fold_labels}
    best, chosen = -1, config.l2[0]
    for l2 in sorted(config.l2, reverse=True):
        weights = fit(values, fold_labels, dict.fromkeys(fold_labels, l2), weights, config.max_iterations)
        predicted = predict(weights, values)
        correct = sum(int(((predicted[str(i)] == labels) & (fold == i)).sum()) for i in range(folds))
        if correct > best:
            best, chosen = correct, l2
    return chosen
