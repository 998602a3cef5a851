"""The temperature that calibrates probabilities, and their error."""

import pytest
import torch

from ijepa.evaluation.calibration import MIN_IMAGES, calibration_error, temperature

COUNT = 20_000


@pytest.fixture(scope="module")
def calibrated():
    """Logits whose softmax is the distribution of the labels."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(COUNT, 4, generator=draw) * 2
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=draw)[:, 0]


@pytest.mark.parametrize("factor", [0.25, 1.0, 5.0])
def test_the_temperature_undoes_a_factor(calibrated, factor):
    logits, labels = calibrated
    found = temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.03)
    assert calibration_error(logits, labels) < 0.015
    assert calibration_error(5 * logits, labels) > 0.1
    assert calibration_error(factor * logits / found, labels) < 0.015


def test_too_few_images_have_no_temperature(calibrated):
    logits, labels = calibrated
    assert temperature(logits[: MIN_IMAGES - 1], labels[: MIN_IMAGES - 1]) is None
    assert temperature(logits[:MIN_IMAGES], labels[:MIN_IMAGES]) is not None


def test_classes_without_a_logit_count_as_wrong(calibrated):
    logits, labels = calibrated
    more = torch.cat([labels, torch.full((COUNT,), 4)])
    confidence = logits.softmax(dim=1).amax(dim=1).mean().item()
    assert calibration_error(logits.repeat(2, 1), more) == pytest.approx(confidence / 2, abs=0.01)


def test_a_few_images_that_are_all_right_do_not_make_it_certain():
    logits = torch.full((60, 2), 0.0)
    logits[:, 0] = 1.7  # a probability of .85
    found = temperature(logits, torch.zeros(60, dtype=torch.int64))
    assert 0.2 < found < 1
    assert (logits / found).softmax(dim=1)[0, 0] < 0.9999
