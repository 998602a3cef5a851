"""Few labels: logistic regression on the frozen features of a share of the training images, or of n of each class.

Everything but the labels of the other training images may be used, so features are standardised by all of them; the
strength of the penalty is chosen by cross-validation among the labelled ones.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ijepa.config import Lowshot
from ijepa.evaluation.bench import Bench, Found, Subject
from ijepa.evaluation.features import Features
from ijepa.evaluation.logistic import LEFT_OUT, fit, predict, projection
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.randomness import shuffled

LABELLED_STREAM, FOLD_STREAM = 12, 13


def evaluate(task: Lowshot, subject: Subject, bench: Bench) -> dict[str, Found]:
    """By label set: top-1 accuracy on the validation images for each amount of labels."""
    return score(task, *bench.features(subject, bench.layers, task.batch_size), bench.seed)


def metrics(task: Lowshot, several: bool) -> list[str]:
    """One for each amount of labels."""
    return [metric for metric, _ in amounts(task)]


def score(task: Lowshot, train: Features, test: Features, seed: int) -> dict[str, Found]:
    """By label set: top-1 accuracy for each amount of labels, its mean over draws; each draw's in the details."""
    project = projection(train.values, task.components, seed)
    values, judged = project(train.values), project(test.values)
    found = {}
    for name, labels in train.labels.items():
        results, details = {}, {}
        for metric, amount in amounts(task):
            right, scores, strengths, chosen = [], [], [], torch.empty(0)
            for draw in range(task.draws):
                chosen = labelled(labels, amount, seed, draw)
                l2 = _strength(task, values[chosen], labels[chosen], seed)
                start = torch.zeros(values.shape[1] + 1, int(labels.max()) + 1)
                model = fit(values[chosen], {name: labels[chosen]}, {name: l2}, {name: start}, task.max_iterations)
                measured = accuracy(predict(model, judged)[name], test.labels[name])
                assert measured.each is not None
                right.append(measured.each)
                scores.append(measured.value)
                strengths.append(l2)
            results[metric] = Measured(float(np.mean(scores)), torch.stack(right).mean(dim=0))
            deviation = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
            details[metric] = {"images": len(chosen), "draws": scores, "deviation": deviation, "l2": strengths}
        found[name] = Found(results, details)
    return found


def amounts(task: Lowshot) -> Iterator[tuple[str, float | int]]:
    """The amounts of labels with the names of their results: shares (below 1) and images of each class."""
    for share in task.shares:
        yield f"lowshot_{100 * share:g}pct", share
    for count in task.shots:
        yield f"lowshot_{count}shot", count


def labelled(labels: Tensor, amount: float | int, seed: int, draw: int) -> Tensor:
    """Which images have labels: of every class so many, or that share of it, but at least one; [m] indices.

    Args:
        labels: [n] classes.
        amount: a share below 1, or a number of images.
        seed: of the draws.
        draw: its number.
    """
    order = torch.from_numpy(shuffled(seed, LABELLED_STREAM, draw, len(labels)))
    chosen = []
    for label in labels.unique().tolist():
        members = order[labels[order] == label]
        chosen.append(members[: max(round(amount * len(members)), 1) if amount < 1 else int(amount)])
    return torch.cat(chosen).sort().values


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
