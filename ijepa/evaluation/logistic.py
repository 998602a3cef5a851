"""Logistic regression on standardised frozen features; the L2 strength is chosen on held-out training images."""

from collections.abc import Callable

import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from ijepa.config import Logistic
from ijepa.evaluation import specs
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import Measured, accuracy
from ijepa.evaluation.task import ConfiguredTask, MetricSpec
from ijepa.util.randomness import Stream, shuffled

HISTORY = 20
"""Steps that L-BFGS remembers."""
TOLERANCE = 1e-8
"""L-BFGS ends when the largest gradient or step is below this."""

LEFT_OUT = -100
"""The label of an image that a classifier is not fitted to."""

Labels = dict[str, Tensor]
"""[n] class indices by label set."""
Model = dict[str, Tensor]
"""A linear classifier for each label set: [D + 1, K] weights, the bias in the last row."""


class LogisticTask(ConfiguredTask[Logistic]):
    """Accuracy of logistic regression."""

    name = "logistic"

    def evaluate(self, evaluated: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy on the validation images."""
        return score(self.config, *ctx.features(evaluated, ctx.layers, self.config.batch_size), ctx.seed)

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The accuracy, and the strength that was chosen."""
        return [specs.LOGISTIC, specs.LOGISTIC_L2]


def score(task: Logistic, train: Features, test: Features, seed: int) -> dict[str, TaskResult]:
    """By label set: top-1 accuracy on ``test``, and the chosen strength of the penalty."""
    project = projection(train.values, task.components, seed)
    order = torch.from_numpy(shuffled(seed, Stream.PROBE_HOLDOUT, 0, len(train.values)))
    values = project(train.values)[order]
    labels = {name: found[order] for name, found in train.labels.items()}
    chosen, start = _strongest_first(task, values, labels)
    predicted = predict(fit(values, labels, chosen, start, task.max_iterations), project(test.values))
    return {
        name: TaskResult(
            {
                specs.LOGISTIC.name: accuracy(predicted[name], test.labels[name]),
                specs.LOGISTIC_L2.name: Measured(chosen[name]),
            }
        )
        for name in labels
    }


def fit(values: Tensor, labels: Labels, l2: dict[str, float], start: Model, max_iterations: int) -> Model:
    """Minimises mean cross-entropy + l2 / 2 |W|^2 for all label sets at once.

    Along principal axes the Hessian is close to diagonal, variance / K + l2. Preconditioned with it, L-BFGS needs tens
    of iterations instead of thousands.

    Args:
        values: [n, D], centred, along their principal axes.
        labels: [n] by label set; rows with `LEFT_OUT` are ignored.
        l2: penalty by label set; the bias is not penalised.
        start: initial weights.
        max_iterations: maximum number of L-BFGS iterations.
    """
    curvature = torch.cat([values.square().mean(dim=0), torch.ones(1)])[:, None]  # of a bias: 1 / K
    names, classes = list(labels), [start[name].shape[1] for name in labels]
    strengths = torch.cat([torch.full((k,), l2[name]) for name, k in zip(names, classes, strict=True)])
    penalty = strengths * torch.ones_like(curvature)  # [D + 1, sum of K]
    penalty[-1] = 0
    shares = torch.cat([torch.full((k,), 1 / k) for k in classes])
    units = (curvature * shares + penalty + torch.finfo(torch.float32).eps).rsqrt()
    scaled = (torch.cat([start[name] for name in names], dim=1) / units).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled],
        max_iter=max_iterations,
        tolerance_grad=TOLERANCE,
        tolerance_change=TOLERANCE,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        weights = scaled * units
        logits = torch.addmm(weights[-1], values, weights[:-1]).split(classes, dim=1)
        loss = (penalty * weights.square()).sum() / 2
        for name, theirs in zip(names, logits, strict=True):
            loss = loss + F.cross_entropy(theirs, labels[name], ignore_index=LEFT_OUT)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return dict(zip(names, (scaled.detach() * units).split(classes, dim=1), strict=True))


def _strongest_first(task: Logistic, values: Tensor, labels: Labels) -> tuple[dict[str, float], Model]:
    """The strength that is best on the first rows, and its model, by label set; a fit starts where the last ended."""
    held = min(max(round(task.holdout * len(values)), 1), len(values) - 1)
    judged = {name: found[:held] for name, found in labels.items()}
    kept = {name: found[held:] for name, found in labels.items()}
    model = {name: torch.zeros(values.shape[1] + 1, int(found.max()) + 1) for name, found in labels.items()}
    best = dict.fromkeys(labels, (-1.0, 0.0))  # accuracy, strength
    models: Model = {}
    worse = dict.fromkeys(labels, 0)
    for l2 in sorted(task.l2, reverse=True):
        left = [name for name in labels if worse[name] < 2]  # past the best, weaker penalties only take longer
        some = {name: kept[name] for name in left}
        model |= fit(values[held:], some, dict.fromkeys(left, l2), model, task.max_iterations) if left else {}
        for name, classes in predict({name: model[name] for name in left}, values[:held]).items():
            score = (classes == judged[name]).float().mean().item()
            worse[name] += 1
            if score > best[name][0]:
                best[name], models[name], worse[name] = (score, l2), model[name], 0
    return {name: strength for name, (_, strength) in best.items()}, models


def predict(model: Model, values: Tensor) -> Labels:
    """The likeliest class of [n, D] ``values``."""
    return {name: torch.addmm(weights[-1], values, weights[:-1]).argmax(dim=1) for name, weights in model.items()}


def projection(values: Tensor, components: int | None, seed: int) -> Callable[[Tensor], Tensor]:
    """Standardises features and turns them onto their principal axes: of the widest, the first ``components``."""
    mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones(()))
    standard = (values - mean) / scale
    if components is not None and min(values.shape) > components:
        pca = PCA(components, svd_solver="randomized", iterated_power=2, random_state=seed % 2**32)
        axes = torch.from_numpy(pca.fit(standard.numpy()).components_.T)
    elif len(standard) < standard.shape[1]:  # D x D would take minutes; across what n images span, weights are zero
        axes = torch.linalg.svd(standard, full_matrices=False).Vh.T
    else:
        axes = torch.linalg.eigh(standard.T @ standard).eigenvectors
    return lambda others: (others - mean) / scale @ axes
