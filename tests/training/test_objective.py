import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ijepa.models.targets import pixel_targets
from ijepa.training.objective import Objective, covariance_term, covariance_within, variance_term

PLACES = torch.tensor([[0, 1, 2, 3, 7], [1, 2, 3, 4, 5], [0, 2, 3, 5, 7]] * 2)


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
    loss = Objective(name)(predictions, targets, context, PLACES)
    torch.testing.assert_close(loss.total, expected(predictions - targets))
    assert loss.variance is loss.covariance is None


def test_regularisers_against_numpy():
    predictions, targets, context = tensors()
    pooled = context.mean(1).numpy()
    deviation = np.sqrt(pooled.var(0, ddof=1) + 1e-4)
    covariance = np.cov(pooled.T)
    off_diagonal = (covariance**2).sum() - (np.diag(covariance) ** 2).sum()
    loss = Objective("l2", 0.5, 0.02)(predictions, targets, context, PLACES)
    assert loss.variance.item() == pytest.approx(np.maximum(1 - deviation, 0).mean(), rel=1e-5)
    assert loss.covariance.item() == pytest.approx(off_diagonal / 4, rel=1e-5)
    expected = loss.distance + 0.5 * loss.variance + 0.02 * loss.covariance
    torch.testing.assert_close(loss.total, expected)
    on_predictions = Objective("l2", 0.5, 0.02, "predictions")(predictions, targets, context, PLACES)
    torch.testing.assert_close(on_predictions.variance, variance_term(predictions.mean((1, 2)).T.cov()))


def test_padding_is_left_out_of_the_pooled_context():
    predictions, targets, context = tensors()
    valid = torch.ones(6, 5, dtype=torch.bool)
    valid[:, 3:] = False
    loss = Objective("l2", 1.0, 1.0)(predictions, targets, context, PLACES, valid)
    torch.testing.assert_close(loss.covariance, covariance_term(context[:, :3].mean(1).T.cov()))
    tokens = Objective("l2", 1.0, 1.0, "tokens", 9)
    rest = tokens(predictions, targets, context[:, :3], PLACES[:, :3])
    context[:, 3:] = 1e6
    assert tokens(predictions, targets, context, PLACES, valid) == rest


def test_tokens_are_compared_with_those_at_their_place():
    predictions, targets, context = tensors()
    flat, places = context.flatten(0, 1).numpy(), PLACES.flatten().numpy()
    centred = np.stack([token - flat[places == place].mean(0) for token, place in zip(flat, places, strict=True)])
    expected = centred.T @ centred / (len(flat) - len(set(places)))
    found = covariance_within(context.flatten(0, 1), PLACES.flatten(), 9)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    loss = Objective("l2", 0.5, 0.02, "tokens", 9)(predictions, targets, context, PLACES)
    torch.testing.assert_close(loss.variance, variance_term(found))
    torch.testing.assert_close(loss.covariance, covariance_term(found))
    places_alone = torch.randn(9, 4)[PLACES]  # positional collapse
    loss = Objective("l2", 1.0, 1.0, "tokens", 9)(predictions, targets, places_alone, PLACES)
    assert loss.variance > 0.98


def test_pixel_targets_are_normalised_patches():
    images = torch.randn(2, 3, 8, 12)
    patches = pixel_targets(images, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 6), atol=1e-6, rtol=0)
    torch.testing.assert_close(patches.var(-1), torch.ones(2, 6), atol=1e-4, rtol=0)
    own = images[1, :, 4:8, 8:12].flatten()
    torch.testing.assert_close(patches[1, 5], F.layer_norm(own, (48,)) * (47 / 48) ** 0.5, atol=1e-4, rtol=0)
