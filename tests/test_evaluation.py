import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ijepa.config import Knn, Logistic
from ijepa.evaluation import knn, logistic
from ijepa.evaluation.features import Features, extract, pixels, pooled


def blobs(count, seed, spread=1.5, classes=4, width=12):
    centres = np.random.default_rng(0).normal(size=(classes, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    values = centres[labels] + spread * rng.normal(size=(count, width))
    return Features(torch.tensor(values, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("center", [False, True])
def test_knn_is_scikit_learn_s(center, monkeypatch):
    train, test = blobs(300, 1), blobs(100, 2)
    monkeypatch.setattr(knn, "CHUNK", 300 * 7)  # several chunks
    ours = knn.predict(train, test.values, [1, 20, 500], 0.07, center)
    mean = train.values.numpy().mean(0) if center else 0
    for k, predicted in ours.items():
        judge = KNeighborsClassifier(
            min(k, 300), metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
        ).fit(train.values.numpy() - mean, train.labels.numpy())
        assert np.array_equal(predicted.numpy(), judge.predict(test.values.numpy() - mean))


def test_knn_task():
    task = Knn(name="knn", k=[5, 20], headline=20, temperature=0.07, center=True, batch_size=8)
    results = knn.evaluate(task, blobs(400, 1, 0.3), blobs(50, 2, 0.3), 0)
    assert results.keys() == {"knn5", "knn20"}
    assert results["knn20"] == 1


def test_logistic_is_scikit_learn_s_at_the_chosen_strength():
    train, test = blobs(400, 1), blobs(200, 2)
    task = Logistic(name="logistic", l2=[0.001, 0.01, 0.1], holdout=0.25, max_iterations=500, batch_size=8)
    results = logistic.evaluate(task, train, test, 0)
    scaler = StandardScaler().fit(train.values)
    judge = LogisticRegression(C=1 / (results["logistic_l2"] * 400), max_iter=500)
    judge.fit(scaler.transform(train.values), train.labels)
    assert results["logistic"] == pytest.approx(judge.score(scaler.transform(test.values), test.labels))
    assert results["logistic_l2"] in task.l2


def test_extract_leaves_unreadable_images_out():
    batches = [(torch.full((2, 1, 4, 4), float(i)), torch.tensor([i, i]), torch.tensor([1, i % 2])) for i in range(3)]
    features = extract(pixels, batches, torch.device("cpu"))
    assert features.labels.tolist() == [0, 1, 1, 2]
    assert features.values[:, 0].tolist() == [0, 1, 1, 2]


def test_pooling_and_pixels():
    images = torch.rand(2, 3, 96, 24)
    assert pixels(images).shape == (2, 3 * 48 * 24)
    encoder = torch.nn.Module()
    encoder.forward = lambda images: images.flatten(2).transpose(1, 2)
    torch.testing.assert_close(pooled(encoder)(images), images.mean((2, 3)))
