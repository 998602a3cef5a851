"""The measures of health, against what they are defined by and other people's code."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from ijepa.data.sets import UNLABELLED
from ijepa.health import measures, probes

N, D = 40, 12


def features(seed=0, count=N, width=D):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width)))


def test_spread_by_hand():
    tokens = features(1, 30 * 7, 5).view(30, 7, 5) + torch.arange(7.0).view(7, 1)
    moments = measures.Moments()
    for batch in tokens.float().split(8):
        moments.add(batch)
    found = moments.spread()
    flat = tokens.flatten(0, 1)
    assert found.std == pytest.approx(flat.var(dim=0, correction=0).mean().sqrt().item(), rel=1e-6)
    assert found.std_across == pytest.approx(tokens.var(dim=0, correction=0).mean().sqrt().item(), rel=1e-6)
    assert found.share == pytest.approx((found.std_across / found.std) ** 2)
    assert found.norm == pytest.approx(tokens.norm(dim=-1).mean().item(), rel=1e-6)
    assert found.relative == pytest.approx(found.std / flat.square().mean().sqrt().item(), rel=1e-6)


def test_spread_tells_the_collapses_apart():
    def spread(tokens):
        moments = measures.Moments()
        moments.add(tokens)
        return moments.spread()

    same = features(2, 1)[:, None].expand(20, 9, D)
    assert spread(same).std == 0
    assert spread(same).share == spread(same).relative == 0
    places = features(3, 9)[None].expand(20, 9, D)  # each token tells where it is, and nothing else
    assert spread(places).relative > 0.5
    assert spread(places).std_across == spread(places).share == 0


def test_agreement_by_hand():
    predictions, targets = features(4, 20 * 6, 5).view(20, 6, 5), features(5, 20 * 6, 5).view(20, 6, 5)
    predictions = predictions + targets
    agreement = measures.PredictionAgreement()
    for one, other in zip(predictions.split(7), targets.split(7), strict=True):
        agreement.add(one, other)
    assert agreement.cosine() == pytest.approx(torch.cosine_similarity(predictions, targets, dim=-1).mean().item())
    one, other = (x - x.mean(dim=0) for x in (predictions, targets))
    assert agreement.correlation() == pytest.approx(np.corrcoef(one.flatten(), other.flatten())[0, 1])
    pairs = [(i, j) for i in range(20) for j in range(20) if i != j]
    own = (predictions - targets).square().sum(dim=-1).mean()
    exchanged = torch.stack([(predictions[i] - targets[j]).square().sum(dim=-1).mean() for i, j in pairs]).mean()
    assert agreement.context_gain() == pytest.approx((1 - own / exchanged).item())
    cosines = torch.stack([torch.cosine_similarity(predictions[i], targets[j], dim=-1).mean() for i, j in pairs])
    assert agreement.cosine_gap() == pytest.approx(agreement.cosine() - cosines.mean().item())
    constant = measures.PredictionAgreement()
    constant.add(targets.mean(dim=0).expand(20, -1, -1), targets)
    assert constant.correlation() == pytest.approx(0, abs=1e-7)
    assert constant.cosine() > 0
    assert constant.context_gain() == pytest.approx(0, abs=0.06)  # position only
    exact = measures.PredictionAgreement()
    exact.add(targets, targets)
    assert exact.context_gain() == pytest.approx(1)
    single = measures.PredictionAgreement()
    single.add(predictions[:1], targets[:1])
    assert math.isnan(single.context_gain())
    assert math.isnan(single.cosine_gap())


def test_rankme_by_hand():
    values = np.linalg.svd(features().numpy(), compute_uv=False)
    shares = values / values.sum()
    assert measures.rankme(features()) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    turned = torch.linalg.qr(features(6, N, 4)).Q  # equal singular values
    assert measures.rankme(turned) == pytest.approx(4)
    assert measures.rankme(torch.ones(N, D)) == pytest.approx(1)
    assert measures.effective_rank(turned + 100) == pytest.approx(measures.effective_rank(turned))
    assert math.isnan(measures.rankme(torch.full((3, 3), torch.nan)))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_alpha_req_of_a_power_law(alpha):
    basis = torch.linalg.qr(features(7, 200, 20) - features(7, 200, 20).mean(dim=0)).Q
    values = torch.arange(1, 21, dtype=torch.float64) ** -alpha
    assert measures.alpha_req(basis * values.sqrt()) == pytest.approx(alpha, abs=1e-6)
    assert math.isnan(measures.alpha_req(torch.ones(N, D)))


def test_lidar_by_hand():
    crops = features(8, 15 * 6, 5).view(15, 6, 5) + 3 * features(9, 15, 5)[:, None]
    means = crops.mean(dim=1)
    inner = (crops - means[:, None]).reshape(-1, 5).numpy()
    within = inner.T @ inner / (15 * 5) + measures.RIDGE * np.eye(5)
    between = np.cov(means.numpy().T)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigen = np.linalg.eigvalsh(root @ between @ root)
    shares = eigen / eigen.sum()
    assert measures.lidar(crops) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    lost = crops.clone()
    lost[..., 1:] = features(10, 15 * 6, 4).view(15, 6, 4)  # crops of one image disagree in all but one dimension
    assert measures.lidar(lost) < measures.lidar(crops)


@pytest.fixture
def labelled():
    labels = torch.arange(60) % 3
    return features(11, 60) + 0.5 * features(12, 3)[labels], labels


def test_knn_leaves_the_image_itself_out(labelled):
    values, labels = labelled
    right = 0
    for index in range(60):
        others = torch.arange(60) != index
        centred = values - values.mean(dim=0)
        cosine = torch.cosine_similarity(centred[index], centred[others], dim=1)
        nearest = cosine.topk(probes.NEIGHBOURS)
        votes = torch.zeros(3, dtype=torch.float64)
        votes.index_add_(0, labels[others][nearest.indices], ((nearest.values - 1) / probes.TEMPERATURE).exp())
        right += int(votes.argmax() == labels[index])
    assert probes.knn(values, labels) == pytest.approx(right / 60)
    assert 0.5 < right / 60 < 1


def test_linear_equals_a_fit_without_each_image(labelled, monkeypatch):
    values, labels = labelled
    monkeypatch.setattr(probes, "RIDGES", (0.1,))
    centred = values - values.mean(dim=0)
    strength = 0.1 * torch.linalg.eigvalsh(centred @ centred.T).clamp_min(0).mean().item()
    model = RidgeClassifier(alpha=strength)
    predicted = cross_val_predict(model, values.numpy(), labels.numpy(), cv=LeaveOneOut())
    assert probes.linear(values, labels) == pytest.approx((predicted == labels.numpy()).mean())


def test_probes_without_knowledge(labelled):
    values, labels = labelled
    shuffled = labels[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    for probe in (probes.knn, probes.linear):
        assert probe(values, shuffled) < 0.55
        assert probe(torch.ones(60, D), labels) <= 0.5
        assert math.isnan(probe(values, torch.zeros(60, dtype=torch.int64)))
        assert math.isnan(probe(values * torch.nan, labels))
        some = torch.where(torch.arange(60) < 30, labels, UNLABELLED)
        assert probe(values, some) == probe(values[:30], labels[:30])


def test_more_dimensions_than_images():
    labels = torch.arange(24) % 2
    values = features(13, 24, 100) + 0.6 * features(14, 2, 100)[labels]
    assert probes.linear(values, labels) > 0.8
    assert measures.rankme(values) <= 24
