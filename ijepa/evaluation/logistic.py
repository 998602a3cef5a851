"""Logistic regression on standardised frozen features; the L2 penalty is chosen on held-out training images."""

from typing import NamedTuple

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional as F

from ijepa.config import Logistic
from ijepa.evaluation import calibration, specs
from ijepa.evaluation.classifiers import ClassifierTask, Trained
from ijepa.evaluation.context import EvalContext, EvaluatedModel, TaskResult
from ijepa.evaluation.features import Features
from ijepa.evaluation.measures import MetricValue, accuracy
from ijepa.evaluation.task import MetricSpec
from ijepa.interop.classifier import Head, linear
from ijepa.util.randomness import Stream, shuffled

HISTORY = 20
"""History size of L-BFGS."""
TOLERANCE = 1e-8
"""L-BFGS ends when the largest gradient or step is below this."""

IGNORED = -100
"""The label of images to which a classifier is not fitted."""

Labels = dict[str, Tensor]
"""[n] class indices by label set."""
Weights = dict[str, Tensor]
"""[D + 1, K] weights of a linear classifier by label set; the last row is the bias."""


class LogisticTask(ClassifierTask[Logistic]):
    """Accuracy of logistic regression."""

    name = "logistic"

    def evaluate(self, model: EvaluatedModel, ctx: EvalContext) -> dict[str, TaskResult]:
        """By label set: top-1 accuracy on the validation images; details: the calibration of its probabilities."""
        train, test = ctx.features(model, ctx.layers, self.config.batch_size)
        fitted = fit_to(self.config, train, ctx.seed)
        facts = {"l2": fitted.l2, "images": len(train.values)}
        self.trained = Trained(fitted.heads(), fitted.temperatures, ctx.layers, facts)
        found = results(fitted, test)
        for name, (values, details) in found.items():
            self.trained.record(name, values[specs.LOGISTIC.name], len(test.values), details)
        return found

    def metrics(self, several: bool) -> list[MetricSpec]:
        """The accuracy, and the chosen L2 penalty."""
        return [specs.LOGISTIC, specs.LOGISTIC_L2]


class Projection(NamedTuple):
    """Standardises features [n, D] and projects them onto principal axes [D, A]."""

    mean: Tensor
    scale: Tensor
    axes: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale @ self.axes

    def unprojected(self, weights: Tensor) -> nn.Linear:
        """The same classifier of features as ``weights`` [A + 1, K] of projected ones, which end with the bias."""
        weight = (self.axes.double() @ weights[:-1].double()) / self.scale[:, None].double()
        return linear(weight.T, weights[-1] - self.mean.double() @ weight)


class Fitted(NamedTuple):
    """Classifiers by label set.

    weights: of projected features; l2: the chosen penalty; temperatures: see `calibration.temperature`.
    """

    project: Projection
    weights: Weights
    l2: dict[str, float]
    temperatures: dict[str, float | None]

    def heads(self) -> dict[str, Head]:
        """Classifiers of features as they are, by label set."""
        return {name: self.project.unprojected(weights) for name, weights in self.weights.items()}


def fit_to(config: Logistic, train: Features, seed: int) -> Fitted:
    """Logistic regression by label set; the L2 penalty and a temperature are chosen on held-out images of ``train``.

    The temperature is that of a classifier to which these images are unknown; the classifier itself is then fitted to
    all of them.
    """
    project = projection(train.values, config.components, seed)
    order = torch.from_numpy(shuffled(seed, Stream.PROBE_HOLDOUT, 0, len(train.values)))
    values = project(train.values)[order]
    labels = {name: classes[order] for name, classes in train.labels.items()}
    chosen, start = _choose_l2(config, values, labels)
    holdout = holdout_count(config, len(values))
    temperatures = {
        name: calibration.temperature(predict_logits(start[name], values[:holdout]), classes[:holdout])
        for name, classes in labels.items()
    }
    return Fitted(project, fit(values, labels, chosen, start, config.max_iterations), chosen, temperatures)


def results(fitted: Fitted, test: Features) -> dict[str, TaskResult]:
    """By label set: top-1 accuracy on ``test``, the L2 penalty, and as details the calibration error before and after.

    Too few images for a temperature: no details.
    """
    found = {}
    for name, weights in fitted.weights.items():
        logits = predict_logits(weights, fitted.project(test.values))
        labels = test.labels[name]
        found[name] = TaskResult(
            {
                specs.LOGISTIC.name: accuracy(logits.argmax(dim=1), labels),
                specs.LOGISTIC_L2.name: MetricValue(fitted.l2[name]),
            },
            calibration.details(logits, labels, fitted.temperatures[name]) or None,
        )
    return found


def fit(values: Tensor, labels: Labels, l2: dict[str, float], start: Weights, max_iterations: int) -> Weights:
    """Minimises mean cross-entropy + l2 / 2 |W|^2 for all label sets at once.

    Along principal axes the Hessian is nearly diagonal: variance / K + l2. With this preconditioner, L-BFGS needs tens
    of iterations instead of thousands.

    Args:
        values: [n, D], centred, along their principal axes.
        labels: [n] by label set; rows labelled `IGNORED` do not count.
        l2: penalty by label set; the bias is not penalised.
        start: initial weights.
        max_iterations: maximum number of L-BFGS iterations.
    """
    curvature = torch.cat([values.square().mean(dim=0), torch.ones(1)])[:, None]  # of the bias: 1 / K
    names, classes = list(labels), [start[name].shape[1] for name in labels]
    penalties = torch.cat([torch.full((k,), l2[name]) for name, k in zip(names, classes, strict=True)])
    penalty = penalties * torch.ones_like(curvature)  # [D + 1, sum of K]
    penalty[-1] = 0
    class_fractions = torch.cat([torch.full((k,), 1 / k) for k in classes])
    scale = (curvature * class_fractions + penalty + torch.finfo(torch.float32).eps).rsqrt()
    scaled = (torch.cat([start[name] for name in names], dim=1) / scale).requires_grad_()
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
        weights = scaled * scale
        logits = torch.addmm(weights[-1], values, weights[:-1]).split(classes, dim=1)
        loss = (penalty * weights.square()).sum() / 2
        for name, label_set_logits in zip(names, logits, strict=True):
            loss = loss + F.cross_entropy(label_set_logits, labels[name], ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return dict(zip(names, (scaled.detach() * scale).split(classes, dim=1), strict=True))


def _choose_l2(config: Logistic, values: Tensor, labels: Labels) -> tuple[dict[str, float], Weights]:
    """The L2 penalty that is best on the first rows, which are held out, and its weights, by label set.

    The strongest penalty is fitted first; each fit starts from the weights of the one before.
    """
    holdout = holdout_count(config, len(values))
    holdout_labels = {name: classes[:holdout] for name, classes in labels.items()}
    train_labels = {name: classes[holdout:] for name, classes in labels.items()}
    weights = {name: torch.zeros(values.shape[1] + 1, int(classes.max()) + 1) for name, classes in labels.items()}
    best = dict.fromkeys(labels, (-1.0, 0.0))  # accuracy, penalty
    best_weights: Weights = {}
    worse = dict.fromkeys(labels, 0)
    for l2 in sorted(config.l2, reverse=True):
        active = [name for name in labels if worse[name] < 2]  # past the best, weaker penalties only take longer
        active_labels = {name: train_labels[name] for name in active}
        if active:
            weights |= fit(values[holdout:], active_labels, dict.fromkeys(active, l2), weights, config.max_iterations)
        for name, classes in predict({name: weights[name] for name in active}, values[:holdout]).items():
            score = (classes == holdout_labels[name]).float().mean().item()
            worse[name] += 1
            if score > best[name][0]:
                best[name], best_weights[name], worse[name] = (score, l2), weights[name], 0
    return {name: l2 for name, (_, l2) in best.items()}, best_weights


def holdout_count(config: Logistic, count: int) -> int:
    """How many of ``count`` training images are held out to choose by."""
    return min(max(round(config.holdout * count), 1), count - 1)


def predict(weights: Weights, values: Tensor) -> Labels:
    """The most likely class of each row of ``values`` [n, D], by label set: [n]."""
    return {name: predict_logits(matrix, values).argmax(dim=1) for name, matrix in weights.items()}


def predict_logits(matrix: Tensor, values: Tensor) -> Tensor:
    """Logits [n, K] of ``values`` [n, D] by weights [D + 1, K]."""
    return torch.addmm(matrix[-1], values, matrix[:-1])


def projection(values: Tensor, components: int | None, seed: int) -> Projection:
    """Standardisation of features [n, D], and projection onto the principal axes of ``values``.

    More than ``components`` axes are reduced to the first ``components``.
    """
    mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones(()))
    standardised = (values - mean) / scale
    if components is not None and min(values.shape) > components:
        pca = PCA(components, svd_solver="randomized", iterated_power=2, random_state=seed % 2**32)
        axes = torch.from_numpy(pca.fit(standardised.numpy()).components_.T)
    elif len(standardised) < standardised.shape[1]:  # D x D takes minutes; weights outside the span are zero
        axes = torch.linalg.svd(standardised, full_matrices=False).Vh.T
    else:
        axes = torch.linalg.eigh(standardised.T @ standardised).eigenvectors
    return Projection(mean, scale, axes)
