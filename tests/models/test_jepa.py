"""The three networks together: targets, momentum update, masks of every size."""

import copy

import numpy as np
import torch
from helpers import small_encoder

from ijepa.masking import Masks, MultiBlock
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.models.targets import TargetStatistics
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


def test_pixels_beside_features():
    """The last dimensions are those of target=pixels, the others those of the target encoder alone."""
    network = small_encoder()
    masks = Masks(torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12]]]))
    images = torch.randn(1, 5, 24, 40)
    features = JEPA(network, Predictor(24, 24, (3, 5), 12, 1, 3), standardize=True)
    pixels = JEPA(network, Predictor(24, 320, (3, 5), 12, 1, 3), "pixels")
    both = JEPA(network, Predictor(24, 24 + 320, (3, 5), 12, 1, 3), standardize=True, pixels=320)
    expected = torch.cat([jepa.targets(images, masks.targets) for jepa in (features, pixels)], dim=-1)
    predictions, targets, _ = both(images, masks)
    torch.testing.assert_close(targets, expected)
    assert predictions.shape == targets.shape


def test_targets_of_several_depths():
    network = small_encoder()
    masks = Masks(torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12]]]))
    images = torch.randn(1, 5, 24, 40)
    depths = (0, 1, len(network.blocks))
    jepa = JEPA(network, Predictor(24, 24 * 3, (3, 5), 12, 1, 3), depths=depths)
    tokens = network.embed(images)
    expected = [tokens]
    for block in network.blocks:
        tokens = block(tokens)
        expected.append(tokens)
    levels = [expected[0], expected[1], network.norm(tokens)]
    whole = torch.cat([torch.nn.functional.layer_norm(level, (24,)) for level in levels], dim=-1)
    predictions, targets, _ = jepa(images, masks)
    torch.testing.assert_close(targets, gather(whole, masks.targets))
    assert predictions.shape == targets.shape
    alone = network(images, masks.targets, depths=(1,))
    assert alone.shape == (1, 2, 2, 24)
    torch.testing.assert_close(alone[:, 1], network.blocks[0](gather(network.embed(images), masks.targets[:, 1])))


def test_renormalized_targets():
    """Each patch and depth by itself, after the statistics that are removed."""
    network = small_encoder()
    masks = Masks(torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12]]]))
    images = torch.randn(1, 5, 24, 40)
    options = {"depths": (0, 1), "standardize": True}
    plain = JEPA(network, Predictor(24, 48, (3, 5), 12, 1, 3), **options)
    again = JEPA(network, Predictor(24, 48, (3, 5), 12, 1, 3), **options, renormalize=True)
    for jepa in (plain, again):
        jepa.statistics.mean.copy_(torch.linspace(-1, 1, 15 * 48).view(15, 48))
        jepa.statistics.variance.copy_(torch.linspace(0.1, 4, 48))
    before, after = (jepa.targets(images, masks.targets) for jepa in (plain, again))
    levels = [torch.nn.functional.layer_norm(level, (24,)) for level in before.split(24, -1)]
    torch.testing.assert_close(after, torch.cat(levels, -1))


def test_standardized_targets():
    draw = torch.Generator().manual_seed(0)
    batches = torch.randn(5, 8, 6, 3, generator=draw) * torch.tensor([1.0, 5.0, 0.1]) + torch.arange(6.0)[:, None]
    whole = TargetStatistics(6, 3, decay=0.9)
    torch.testing.assert_close(whole(batches[0]), batches[0], atol=1e-5, rtol=0)  # nothing is known yet
    for batch in batches[1:]:
        whole.update()
        whole(batch)
    whole.update()
    seen = batches.flatten(0, 1)
    torch.testing.assert_close(whole.mean, seen.mean(dim=0))  # plain averages at first
    new = torch.randn(100, 6, 3, generator=draw) * torch.tensor([1.0, 5.0, 0.1]) + torch.arange(6.0)[:, None]
    found = whole.eval()(new)
    assert found.mean(dim=0).abs().max() < 0.5
    torch.testing.assert_close(found.std(dim=(0, 1)), torch.ones(3), atol=0.1, rtol=0)
    micro = TargetStatistics(6, 3, decay=0.9)
    for batch in batches:
        for part in batch.split(2):
            micro(part)
        micro.update()
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(micro.state_dict()[name], tensor, atol=1e-5, rtol=1e-5)
    before = whole.mean.clone()
    whole.train()(new + 10)
    whole.update()
    torch.testing.assert_close(whole.mean, before + (new.mean(dim=0) + 10 - before) / 6)
    for _ in range(20):
        whole(new)
        whole.update()
    torch.testing.assert_close(whole.mean, new.mean(dim=0), atol=1.5, rtol=0)  # the past is forgotten


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
