"""Logistic regression, judged by scikit-learn."""

import numpy as np
import pytest
import torch
from helpers import blobs
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ijepa.config import Logistic
from ijepa.evaluation import logistic


@pytest.mark.integration
@pytest.mark.parametrize("l2", [1e-4, 0.01, 1.0])
def test_logistic_regression_is_scikit_learn_s(l2):
    """Correlated features of very different scale, three label sets' worth of classes at once."""
    train = blobs(500, 1, width=40)
    mixing = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -2, 40)
    values = train.values @ mixing
    values = values - values.mean(dim=0)
    axes = torch.linalg.eigh(values.T @ values).eigenvectors
    zeros = {"class": torch.zeros(41, 4), "parity": torch.zeros(41, 2)}
    ours = logistic.fit(values @ axes, train.labels, dict.fromkeys(zeros, l2), zeros, 300)
    for name, labels in train.labels.items():
        # two classes are one set of weights there, of the difference: half the penalty
        strength = l2 * 500 / (2 if name == "parity" else 1)
        judge = LogisticRegression(C=1 / strength, max_iter=100000, tol=1e-10).fit(values.double(), labels)
        probabilities = torch.addmm(ours[name][-1], values @ axes, ours[name][:-1]).softmax(dim=1)
        np.testing.assert_allclose(probabilities, judge.predict_proba(values.double()), atol=2e-3)


def test_logistic_is_scikit_learn_s_at_the_chosen_strength():
    train, test = blobs(400, 1), blobs(200, 2)
    task = Logistic(components=None, l2=[0.001, 0.01, 0.1], holdout=0.25, max_iterations=500, batch_size=8)
    results = {
        name: found.value
        for name, found in logistic.results(logistic.fit_to(task, train, 0), test)["class"].results.items()
    }
    scaler = StandardScaler().fit(train.values)
    judge = LogisticRegression(C=1 / (results["logistic_l2"] * 400), max_iter=500)
    judge.fit(scaler.transform(train.values), train.labels["class"])
    assert results["logistic"] == pytest.approx(judge.score(scaler.transform(test.values), test.labels["class"]))
    assert results["logistic_l2"] in task.l2


def test_logistic_on_fewer_images_than_features_is_scikit_learn_s():
    train, test = blobs(30, 1, width=200, spread=4), blobs(100, 2, width=200, spread=4)
    task = Logistic(components=1024, l2=[0.1], holdout=0.25, max_iterations=500, batch_size=8)
    found = logistic.results(logistic.fit_to(task, train, 0), test)["class"].results["logistic"].value
    scaler = StandardScaler().fit(train.values)
    judge = LogisticRegression(C=1 / (0.1 * 30), max_iter=5000, tol=1e-8)
    judge.fit(scaler.transform(train.values), train.labels["class"])
    assert 0.3 < found == pytest.approx(judge.score(scaler.transform(test.values), test.labels["class"]), abs=0.011)


@pytest.mark.integration
def test_logistic_with_a_class_of_one_image():
    task = Logistic(components=None, l2=[0.01, 1], holdout=0.5, max_iterations=100, batch_size=8)
    train, test = blobs(60, 1, spread=0.1), blobs(40, 2, spread=0.1)
    for row in range(8):  # held out or not
        train.labels["class"][:] = train.labels["class"] % 2
        train.labels["class"][row] = 2
        found = logistic.results(logistic.fit_to(task, train, 0), test)
        assert found["parity"].results["logistic"].value == 1
        assert 0 < found["class"].results["logistic"].value < 1
