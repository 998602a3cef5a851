"""Few labels: logistic regression on frozen features of the labelled images, or the paper's fine-tuning.

Only the labels of the other training images are unknown, so features are standardised over all images. The penalty is
chosen by cross-validation among the labelled ones.
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
from ijepa.evaluation.logistic import LEFT_OUT, fit, predict, projection
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.evaluation.progress import progress
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.randomness import Stream, shuffled

Few = TypeVar("Few", Lowshot, LowshotFinetune)
Score = Callable[[str, Tensor, str, int], tuple[Measured, list[float]]]
"""From label set, labelled rows, title and number of the draw to a result, and the penalty where one is chosen."""


class FewLabelsTask(ConfiguredTask[Few]):
    """Top-1 accuracy on the validation images for each amount of labels: its mean over draws."""

    family: MetricSpec

    def metrics(self, several: bool) -> list[MetricSpec]:
        """One for each amount of labels."""
        return [self.family.named(amount=text) for text, _ in fewlabels.amounts(self.config)]

    def validate(self, data: DataModule) -> None:
        """Refuses a task without labels, and lists that are not there."""
        fewlabels.validate(self.config, self.key, data.source.train)

    def over_draws(
        self, score: Score, title: str, ctx: EvalContext, train: Features, name: str, bar: bool
    ) -> TaskResult:
        """The results of a label set; each draw's are in the details."""
        results: dict[str, Measured] = {}
        details: dict[str, Any] = {}
        for text, amount in fewlabels.amounts(self.config):
            metric = self.family.named(amount=text).name
            scores, strengths, chosen = [], list[float](), torch.empty(0)
            draws = fewlabels.draws(self.config, self.key, ctx, train, name, amount)
            about = f"{title}: {text} of {name}"
            for draw, chosen in enumerate(progress(draws, ctx.title(about) if bar else "", len(draws))):
                measured, chosen_strength = score(name, chosen, about, draw)
                scores.append(measured)
                strengths += chosen_strength
            results[metric], details[metric] = fewlabels.over(scores, len(chosen))
            details[metric] |= {"l2": strengths} if strengths else {}
        return TaskResult(results, details)


class LowshotTask(FewLabelsTask[Lowshot]):
    """Few labels, read by logistic regression."""

    name = "lowshot"
    family = specs.LOWSHOT

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        train, test = ctx.features(evaluated, ctx.layers, self.config.batch_size)
        probe = Probe(self.config, train, test, ctx.seed)

        def score(name: str, chosen: Tensor, title: str, draw: int) -> tuple[Measured, list[float]]:
            measured, strength = probe.score(name, chosen)
            return measured, [strength]

        return {name: self.over_draws(score, evaluated.name, ctx, train, name, bar=True) for name in train.labels}


class LowshotFinetuneTask(FewLabelsTask[LowshotFinetune]):
    """Few labels, the whole encoder fine-tuned on them; pixels have nothing to fine-tune."""

    name = "lowshot_finetune"
    family = specs.LOWSHOT_FINETUNE

    def validate(self, data: DataModule) -> None:
        """Refuses also RandAugment of what is no picture."""
        super().validate(data)
        finetune.refuse_tuning(self.config, data, self.key)

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        if evaluated.encoder is None:
            return {}
        train, test = ctx.features(evaluated, 1, self.config.batch_size)

        def score(name: str, chosen: Tensor, title: str, draw: int) -> tuple[Measured, list[float]]:
            labelled, number = train.only([name]), f"{title}, draw {draw + 1}"  # which has a bar of its own
            tuned = finetune.tune(self.config, evaluated, ctx, labelled, test, chosen, number, draw)
            return tuned.results[name], []

        names = self.config.labels or train.labels
        return {name: self.over_draws(score, evaluated.name, ctx, train, name, bar=False) for name in names}


class Probe:
    """Logistic regression on some rows of ``train``, judged on ``test``."""

    def __init__(self, task: Lowshot, train: Features, test: Features, seed: int) -> None:
        project = projection(train.values, task.components, seed)
        self.task = task
        self.train = train._replace(values=project(train.values))
        self.test = test._replace(values=project(test.values))
        self.seed = seed

    def score(self, name: str, chosen: Tensor) -> tuple[Measured, float]:
        """Top-1 accuracy on label set ``name`` after fitting the rows ``chosen``, and the strength of the penalty."""
        values, labels = self.train.values[chosen], self.train.labels[name]
        l2 = _strength(self.task, values, labels[chosen], self.seed)
        start = torch.zeros(values.shape[1] + 1, int(labels.max()) + 1)
        model = fit(values, {name: labels[chosen]}, {name: l2}, {name: start}, self.task.max_iterations)
        return accuracy(predict(model, self.test.values)[name], self.test.labels[name]), l2


def _strength(task: Lowshot, values: Tensor, labels: Tensor, seed: int) -> float:
    """The strength whose classifiers tell most of the images that they have not seen; the strongest of equal ones.

    A fold is fitted as a label set whose left-out images count for nothing, all folds at once. A class of a single
    image is never told when it is left out; that is the same for every strength.
    """
    folds = min(task.folds, len(labels))
    fold = torch.from_numpy(np.argsort(shuffled(seed, Stream.FOLDS, 0, len(labels)))) % folds
    kept = {str(i): torch.where(fold == i, LEFT_OUT, labels) for i in range(folds)}
    model = {name: torch.zeros(values.shape[1] + 1, int(labels.max()) + 1) for name in kept}
    best, chosen = -1, task.l2[0]
    for l2 in sorted(task.l2, reverse=True):
        model = fit(values, kept, dict.fromkeys(kept, l2), model, task.max_iterations)
        predicted = predict(model, values)
        right = sum(int(((predicted[str(i)] == labels) & (fold == i)).sum()) for i in range(folds))
        if right > best:
            best, chosen = right, l2
    return chosen
