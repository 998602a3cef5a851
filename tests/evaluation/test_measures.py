import numpy as np
import pytest
import torch
from scipy.stats import binom

from ijepa.evaluation import measures
from ijepa.evaluation.measures import MetricValue, accuracy


def outcomes(right, count):
    predicted = torch.zeros(count, dtype=torch.long)
    labels = (torch.arange(count) >= right).long()
    return accuracy(predicted, labels)


@pytest.mark.parametrize(("right", "count"), [(700, 1000), (45, 60)])
def test_the_interval_of_an_accuracy_is_the_binomial_s(right, count, monkeypatch):
    """Resampling n outcomes of which a share p is right draws from Binomial(n, p) / n."""
    monkeypatch.setattr(measures, "CHUNK", count * 7)  # several chunks
    found = outcomes(right, count)
    assert found.value == pytest.approx(right / count)
    low, high = found.interval(0)
    expected = binom.ppf([0.025, 0.975], count, right / count) / count
    assert (low, high) == pytest.approx(tuple(expected), abs=0.1 * (high - low))
    assert found.interval(0) == (low, high)
    assert found.interval(1) != (low, high)


def test_chunks_do_not_change_an_interval(monkeypatch):
    whole = outcomes(30, 50).interval(0)
    monkeypatch.setattr(measures, "CHUNK", 1)
    assert outcomes(30, 50).interval(0) == whole


def test_the_extremes():
    assert outcomes(50, 50).interval(0) == (1, 1)
    assert outcomes(0, 50).interval(0) == (0, 0)
    assert MetricValue(3.0).interval(0) is None
    nothing = torch.zeros(5, 2, dtype=torch.float64)  # no image has anything that counts
    assert MetricValue(float("nan"), nothing).interval(0) is None
    nothing[:3] = 1
    assert MetricValue(1.0, nothing).interval(0) == (1, 1)


def test_a_result_that_is_no_mean():
    """The root of a mean of squares, as an error in metres."""
    errors = torch.from_numpy(np.random.default_rng(0).normal(0, 2, 400))
    each = torch.stack([errors.square(), torch.ones(400)], dim=1)
    low, high = MetricValue(
        errors.square().mean().sqrt().item(), each, lambda sums: (sums[:, 0] / sums[:, 1]).sqrt()
    ).interval(0)
    assert low < errors.square().mean().sqrt() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 800**0.5, rel=0.15)  # a deviation's standard error
