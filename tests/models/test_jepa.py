"""The three networks together: targets, momentum update, masks of every size."""

import copy

import numpy as np
import torch
from helpers import small_encoder

from ijepa.masking import Masks, MultiBlock
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.models.transformer import gather


def test_target_options():
    network = small_encoder()
    masks = Masks(torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12]]]))
    images = torch.randn(1, 5, 24, 40)
    output = JEPA(network, Predictor(24, 24, (3, 5), 12, 1, 3), "output")
    whole = torch.nn.functional.layer_norm(output.target_encoder(images), (24,))
    torch.testing.assert_close(output.targets(images, masks.targets), gather(whole, masks.targets))
    masked = JEPA(network, Predictor(24, 24, (3, 5), 12, 1, 3), "input")
    one = torch.nn.functional.layer_norm(masked.target_encoder(images, masks.targets[:, 1]), (24,))
    torch.testing.assert_close(masked.targets(images, masks.targets)[:, 1], one, atol=1e-5, rtol=0)
    pixels = JEPA(network, Predictor(24, 8 * 8 * 5, (3, 5), 12, 1, 3), "pixels")
    predictions, targets, _ = pixels(images, masks)
    assert predictions.shape == targets.shape == (1, 2, 2, 320)
    patch = images[0, :, 0:8, 8:16].flatten()
    expected = (patch - patch.mean()) / patch.std()
    torch.testing.assert_close(targets[0, 0, 1], expected, atol=1e-4, rtol=0)


def test_momentum_update():
    jepa = JEPA(small_encoder(), Predictor(24, 24, (3, 5), 12, 1, 3))
    with torch.no_grad():
        for parameter in jepa.context_encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = copy.deepcopy(jepa.target_encoder.state_dict())
    jepa.update_target_encoder(0.9)
    for name, tensor in jepa.target_encoder.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * jepa.context_encoder.state_dict()[name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)
    assert not any(parameter.requires_grad for parameter in jepa.target_encoder.parameters())


def test_masks_fit_the_networks():
    sampler = MultiBlock((3, 5), 2, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), None, "keep")
    jepa = JEPA(small_encoder(), Predictor(24, 24, (3, 5), 12, 1, 3))
    predictions, targets, context = jepa(torch.randn(4, 5, 24, 40), sampler.sample(0, 0, np.arange(4)))
    assert predictions.shape == targets.shape
    assert context.shape[0] == 4
    assert predictions.isfinite().all()
