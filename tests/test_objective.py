import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ijepa.objective import Objective, covariance_term, pixel_targets, variance_term


def tensors():
    generator = torch.Generator().manual_seed(0)
    shape = (6, 2, 3, 4)
    predictions, targets = (torch.randn(shape, generator=generator) for _ in range(2))
    return predictions, targets, torch.randn(6, 5, 4, generator=generator)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l2", lambda d: (d**2).mean()),
        ("l1", lambda d: d.abs().mean()),
        ("smooth_l1", lambda d: torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5).mean()),
    ],
)
def test_distances(name, expected):
    predictions, targets, context = tensors()
    loss = Objective(name)(predictions, targets, context)
    torch.testing.assert_close(loss.total, expected(predictions - targets))
    assert loss.variance is loss.covariance is None


def test_regularisers_against_numpy():
    predictions, targets, context = tensors()
    pooled = context.mean(1).numpy()
    deviation = np.sqrt(pooled.var(0, ddof=1) + 1e-4)
    covariance = np.cov(pooled.T)
    off_diagonal = (covariance**2).sum() - (np.diag(covariance) ** 2).sum()
    loss = Objective("l2", 0.5, 0.02)(predictions, targets, context)
    assert loss.variance.item() == pytest.approx(np.maximum(1 - deviation, 0).mean(), rel=1e-5)
    assert loss.covariance.item() == pytest.approx(off_diagonal / 4, rel=1e-5)
    expected = loss.distance + 0.5 * loss.variance + 0.02 * loss.covariance
    torch.testing.assert_close(loss.total, expected)
    on_predictions = Objective("l2", 0.5, 0.02, "predictions")(predictions, targets, context)
    torch.testing.assert_close(on_predictions.variance, variance_term(predictions.mean((1, 2))))


def test_padding_is_left_out_of_the_pooled_context():
    predictions, targets, context = tensors()
    valid = torch.ones(6, 5, dtype=torch.bool)
    valid[:, 3:] = False
    loss = Objective("l2", 1.0, 1.0)(predictions, targets, context, valid)
    torch.testing.assert_close(loss.covariance, covariance_term(context[:, :3].mean(1)))


def test_pixel_targets_are_normalised_patches():
    images = torch.randn(2, 3, 8, 12)
    patches = pixel_targets(images, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 6), atol=1e-6, rtol=0)
    torch.testing.assert_close(patches.var(-1), torch.ones(2, 6), atol=1e-4, rtol=0)
    own = images[1, :, 4:8, 8:12].flatten()
    torch.testing.assert_close(patches[1, 5], F.layer_norm(own, (48,)) * (47 / 48) ** 0.5, atol=1e-4, rtol=0)
