"""Features of images: extracted, pooled, reduced."""

import pytest
import torch
from helpers import blobs
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ijepa.config import Logistic
from ijepa.evaluation import logistic
from ijepa.evaluation.features import extract, last_layers, pixels
from ijepa.evaluation.runtime import Runtime
from ijepa.models.pretrained import PretrainedEncoder, Spec

SPEC = Spec((24, 24), 6, 3, 24, 2, 3, 4.0, "index", None, (0.5,) * 3, (0.25,) * 3)


def test_extract_leaves_unreadable_images_out():
    batches = [(torch.full((2, 1, 4, 4), float(i)), torch.tensor([1, i % 2])) for i in range(3)]
    values, readable = extract(pixels, batches, torch.device("cpu"))
    assert readable.tolist() == [True, False, True, True, True, False]
    assert values[:, 0].tolist() == [0, 1, 1, 2]


def test_wide_features_are_reduced_to_their_principal_components():
    """The judge: exact PCA of the standardised features, then the same regression."""
    train, test = blobs(400, 1, width=60), blobs(200, 2, width=60)
    task = Logistic(components=20, l2=[0.01], holdout=0.25, max_iterations=500, batch_size=8)
    found = logistic.results(logistic.fit_to(task, train, 0), test)["class"].results["logistic"].value
    scaler = StandardScaler().fit(train.values)
    pca = PCA(20, svd_solver="full").fit(scaler.transform(train.values))
    values = [pca.transform(scaler.transform(part.values)) for part in (train, test)]
    judge = LogisticRegression(C=1 / (0.01 * 400), max_iter=500).fit(values[0], train.labels["class"])
    assert found == pytest.approx(judge.score(values[1], test.labels["class"]), abs=0.02)


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
        torch.testing.assert_close(last_layers(four, 1, 2), features, atol=tolerance, rtol=0)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features, exact, atol=tolerance, rtol=0)
    assert not torch.equal(features, exact)
