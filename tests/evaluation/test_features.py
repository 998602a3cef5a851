import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ijepa.config import Knn, Logistic
from ijepa.evaluation import knn, logistic
from ijepa.evaluation.features import Features, extract, of_last, pixels
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import PretrainedEncoder, Spec

SPEC = Spec((24, 24), 6, 3, 24, 2, 3, 4.0, "index", None, (0.5,) * 3, (0.25,) * 3)


def blobs(count, seed, spread=1.5, classes=4, width=12):
    centres = np.random.default_rng(0).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    values = centres[labels] + spread * rng.normal(size=(count, width))
    sets = {"class": torch.tensor(labels), "parity": torch.tensor(labels % 2)}
    return Features(torch.tensor(values, dtype=torch.float32), sets, torch.arange(count))


@pytest.mark.parametrize("center", [False, True])
def test_knn_is_scikit_learn_s(center, monkeypatch):
    train, test = blobs(300, 1), blobs(100, 2)
    monkeypatch.setattr(knn, "CHUNK", 300 * 7)  # several chunks
    ours = knn.predict(train.values, train.labels, test.values, [1, 20, 500], 0.07, center)
    mean = train.values.numpy().mean(0) if center else 0
    for name, found in ours.items():
        for k, predicted in found.items():
            judge = KNeighborsClassifier(
                min(k, 300), metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
            ).fit(train.values.numpy() - mean, train.labels[name].numpy())
            assert np.array_equal(predicted.numpy(), judge.predict(test.values.numpy() - mean))


def test_knn_task():
    task = Knn(k=[5, 20], headline=20, temperature=0.07, center=True, batch_size=8)
    found = knn.score(task, blobs(400, 1, 0.3), blobs(50, 2, 0.3))
    assert found.keys() == {"class", "parity"}
    assert found["class"].results.keys() == {"knn5", "knn20"}
    assert found["class"].results["knn20"].value == found["parity"].results["knn20"].value == 1


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
    results = {name: found.value for name, found in logistic.score(task, train, test, 0)["class"].results.items()}
    scaler = StandardScaler().fit(train.values)
    judge = LogisticRegression(C=1 / (results["logistic_l2"] * 400), max_iter=500)
    judge.fit(scaler.transform(train.values), train.labels["class"])
    assert results["logistic"] == pytest.approx(judge.score(scaler.transform(test.values), test.labels["class"]))
    assert results["logistic_l2"] in task.l2


def test_logistic_on_fewer_images_than_features_is_scikit_learn_s():
    train, test = blobs(30, 1, width=200, spread=4), blobs(100, 2, width=200, spread=4)
    task = Logistic(components=1024, l2=[0.1], holdout=0.25, max_iterations=500, batch_size=8)
    found = logistic.score(task, train, test, 0)["class"].results["logistic"].value
    scaler = StandardScaler().fit(train.values)
    judge = LogisticRegression(C=1 / (0.1 * 30), max_iter=5000, tol=1e-8)
    judge.fit(scaler.transform(train.values), train.labels["class"])
    assert 0.3 < found == pytest.approx(judge.score(scaler.transform(test.values), test.labels["class"]), abs=0.011)


def test_logistic_with_a_class_of_one_image():
    task = Logistic(components=None, l2=[0.01, 1], holdout=0.5, max_iterations=100, batch_size=8)
    train, test = blobs(60, 1, spread=0.1), blobs(40, 2, spread=0.1)
    for row in range(8):  # held out or not
        train.labels["class"][:] = train.labels["class"] % 2
        train.labels["class"][row] = 2
        found = logistic.score(task, train, test, 0)
        assert found["parity"].results["logistic"].value == 1
        assert 0 < found["class"].results["logistic"].value < 1


def test_extract_leaves_unreadable_images_out():
    batches = [(torch.full((2, 1, 4, 4), float(i)), torch.tensor([1, i % 2])) for i in range(3)]
    values, readable = extract(pixels, batches, torch.device("cpu"))
    assert readable.tolist() == [True, False, True, True, True, False]
    assert values[:, 0].tolist() == [0, 1, 1, 2]


def test_wide_features_are_reduced_to_their_principal_components():
    """The judge: exact PCA of the standardised features, then the same regression."""
    train, test = blobs(400, 1, width=60), blobs(200, 2, width=60)
    task = Logistic(components=20, l2=[0.01], holdout=0.25, max_iterations=500, batch_size=8)
    results = {name: found.value for name, found in logistic.score(task, train, test, 0)["class"].results.items()}
    scaler = StandardScaler().fit(train.values)
    pca = PCA(20, svd_solver="full").fit(scaler.transform(train.values))
    values = [pca.transform(scaler.transform(part.values)) for part in (train, test)]
    judge = LogisticRegression(C=1 / (0.01 * 400), max_iter=500).fit(values[0], train.labels["class"])
    assert results["logistic"] == pytest.approx(judge.score(values[1], test.labels["class"]), abs=0.02)


def test_pooling_and_pixels():
    images = torch.rand(2, 3, 96, 24)
    assert pixels(images).shape == (2, 3 * 48 * 24)
    encoder = PretrainedEncoder(SPEC.build(), SPEC).eval()
    images = images[..., :24, :]
    exact = encoder(images).mean(dim=1)
    for bf16, tolerance in ((False, 1e-6), (True, 0.05)):
        runtime = Runtime(torch.device("cpu"), bf16)
        features = runtime.pooled(encoder)(images)
        four = runtime.pooled(encoder, 2)(images)
        torch.testing.assert_close(of_last(four, 1, 2), features, atol=tolerance, rtol=0)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, exact, atol=tolerance, rtol=0)
    assert not torch.equal(features, exact)
