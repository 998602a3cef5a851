"""k-NN, judged by scikit-learn."""

import numpy as np
import pytest
from helpers import blobs
from sklearn.neighbors import KNeighborsClassifier

from ijepa.config import Knn
from ijepa.evaluation import knn


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
