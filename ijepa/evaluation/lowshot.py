"""Few labels: logistic regression on frozen features of the labelled images, or the paper's fine-tuning.

Only the labels of the other training images are unknown, so features are standardised over all images. The penalty is
chosen by cross-validation among the labelled ones.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ijepa.config import Lowshot, LowshotFinetune
from ijepa.data.datamodule import DataModule
from ijepa.evaluation import fewlabels, finetune
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.logistic import LEFT_OUT, fit, predict, projection
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.evaluation.progress import progress
from ijepa.util.randomness import shuffled

FOLD_STREAM = 13
NAMES = {Lowshot: "lowshot", LowshotFinetune: "lowshot_finetune"}


def evaluate(task: Lowshot | LowshotFinetune, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
    """By label set: top-1 accuracy on the validation images for each amount of labels, its mean over draws.

    Each draw's stands in the details. Pixels have nothing to fine-tune.
    """
    tuned, kind = isinstance(task, LowshotFinetune), NAMES[type(task)]
    if tuned and evaluated.encoder is None:
        return {}
    train, test = ctx.features(evaluated, 1 if tuned else ctx.layers, task.batch_size)
    if isinstance(task, Lowshot):
        probe = Probe(task, train, test, ctx.seed)
    found = {}
    for name in (task.labels if isinstance(task, LowshotFinetune) else None) or train.labels:
        results: dict[str, Measured] = {}
        details: dict[str, Any] = {}
        for metric, amount in fewlabels.amounts(task, kind):
            scores, strengths, chosen = [], [], torch.empty(0)
            draws = fewlabels.draws(task, f"task.{kind}", ctx, train, name, amount)
            title = f"{evaluated.name}: {metric.removeprefix(f'{kind}_')} of {name}"
            bar = "" if tuned else ctx.title(title)  # fine-tuning shows one for each draw
            for draw, chosen in enumerate(progress(draws, bar, len(draws))):
                if isinstance(task, Lowshot):
                    measured, l2 = probe.score(name, chosen)
                    strengths.append(l2)
                else:
                    labelled = train.only([name])
                    network = finetune.tune(
                        task, evaluated, ctx, labelled, test, chosen, f"{title}, draw {draw + 1}", draw
                    )
                    measured = network.results[name]
                scores.append(measured)
            results[metric], details[metric] = fewlabels.over(scores, len(chosen))
            details[metric] |= {"l2": strengths} if strengths else {}
        found[name] = TaskResult(results, details)
    return found


def metrics(task: Lowshot | LowshotFinetune, several: bool) -> list[str]:
    """One for each amount of labels."""
    return [metric for metric, _ in fewlabels.amounts(task, NAMES[type(task)])]


def validate(task: Lowshot | LowshotFinetune, data: DataModule) -> None:
    """Refuses a task without labels, lists that are not there, and RandAugment of what is no picture."""
    fewlabels.validate(task, f"task.{NAMES[type(task)]}", data.source.train)
    if isinstance(task, LowshotFinetune):
        finetune.refuse_tuning(task, data, "task.lowshot_finetune")


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
    fold = torch.from_numpy(np.argsort(shuffled(seed, FOLD_STREAM, 0, len(labels)))) % folds
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
