"""Few labels: which images have them, which penalty is chosen, and the classifier, judged by scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ijepa.config import Lowshot
from ijepa.evaluation import fewlabels, lowshot
from ijepa.evaluation.context import EvaluatedModel
from ijepa.evaluation.features import Features
from ijepa.util.randomness import Stream, shuffled


def blobs(count, seed, spread=1.5, classes=4, width=12):
    centres = np.random.default_rng(0).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    values = centres[labels] + spread * rng.normal(size=(count, width))
    return Features(torch.tensor(values, dtype=torch.float32), {"class": torch.tensor(labels)}, torch.arange(count))


def task(**changes):
    values = {"shares": [0.1], "shots": [1, 5], "lists": [], "draws": 3, "l2": [1e-3, 0.01, 0.1], "folds": 5,
              "max_iterations": 500, "components": None, "batch_size": 8}  # fmt: skip
    return Lowshot(**{**values, **changes})


def scored(chosen, train, test):
    ctx = SimpleNamespace(features=lambda *_: (train, test), seed=0, layers=1, title=lambda text: "")
    return lowshot.LowshotTask(chosen).evaluate(EvaluatedModel("encoder", None), ctx)["class"]


@pytest.mark.parametrize("amount", [0.1, 0.001, 3])
def test_every_class_has_its_share(amount):
    labels = blobs(500, 1).labels["class"]
    chosen = fewlabels.draw_rows(labels, amount, 0, 0)
    assert len(set(chosen.tolist())) == len(chosen)
    for label in range(4):
        count = int((labels == label).sum())
        expected = amount if amount >= 1 else max(round(amount * count), 1)
        assert int((labels[chosen] == label).sum()) == expected
    assert not torch.equal(chosen, fewlabels.draw_rows(labels, amount, 0, 1))
    assert torch.equal(chosen, fewlabels.draw_rows(labels, amount, 0, 0))


def test_all_images_of_a_class_that_has_no_more():
    labels = torch.tensor([0] * 20 + [1] * 2)
    assert int((labels[fewlabels.draw_rows(labels, 5, 0, 0)] == 1).sum()) == 2


@pytest.mark.integration
def test_the_classifier_is_scikit_learn_s():
    train, test = blobs(400, 1), blobs(200, 2)
    found = scored(task(draws=2), train, test)
    assert list(found.results) == ["lowshot_10pct", "lowshot_1shot", "lowshot_5shot"]
    scaler = StandardScaler().fit(train.values)
    for text, amount in fewlabels.amounts(task()):
        metric = f"lowshot_{text}"
        details = found.details[metric]
        assert found.results[metric].value == pytest.approx(np.mean(details["draws"]))
        assert details["deviation"] == pytest.approx(np.std(details["draws"], ddof=1))
        for draw, (l2, score) in enumerate(zip(details["l2"], details["draws"], strict=True)):
            chosen = fewlabels.draw_rows(train.labels["class"], amount, 0, draw).numpy()
            assert details["images"] == len(chosen)
            judge = LogisticRegression(C=1 / (l2 * len(chosen)), max_iter=1000, tol=1e-8)
            judge.fit(scaler.transform(train.values)[chosen], train.labels["class"].numpy()[chosen])
            assert score == pytest.approx(judge.score(scaler.transform(test.values), test.labels["class"]), abs=0.011)


def test_cross_validation_chooses_as_scikit_learn_does():
    """The same folds, each strength."""
    train = blobs(80, 0, spread=4, width=60)
    values = train.values - train.values.mean(dim=0)
    labels = train.labels["class"]
    chosen, unseen, known = lowshot._choose_l2(task(l2=[1e-6, 1.0]), values, labels, 0)
    assert known.all()
    fold = np.argsort(shuffled(0, Stream.FOLDS, 0, 80)) % 5
    right = {}
    for l2 in (1e-6, 1.0):
        right[l2] = 0
        for i in range(5):
            kept = fold != i
            judge = LogisticRegression(C=1 / (l2 * kept.sum()), max_iter=10000)
            judge.fit(values[kept], labels[kept])
            right[l2] += (judge.predict(values[~kept]) == labels[~kept].numpy()).sum()
    assert abs(right[1e-6] - right[1.0]) > 2  # the draw tells them apart
    assert chosen == max(right, key=right.get)
    assert (unseen.argmax(dim=1) == labels).sum() == right[chosen]  # logits of images unknown to their classifier


@pytest.mark.integration
def test_the_interval_is_of_the_mean_over_draws():
    found = scored(task(shots=[]), blobs(300, 1), blobs(100, 2)).results["lowshot_10pct"]
    low, high = found.interval(0)
    assert low < found.value < high
