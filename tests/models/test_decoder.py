"""The sketch decoder's networks: diffusion, what it is conditioned on, and what it draws."""

import pytest
import torch
from helpers import small_encoder
from torch.nn import functional as F

from ijepa.config.decoder import SAMPLERS
from ijepa.masking import Masks
from ijepa.models.transformer import gather

pytest.importorskip("diffusers", reason="only experiment=decoder needs it")

from ijepa.models.conditions import Conditions, Representation, boxes
from ijepa.models.decoder import SketchDecoder, pictures
from ijepa.models.diffusion import Diffusion
from ijepa.models.predictor import Predictor

PAIRS = [(prediction, sampler) for prediction, samplers in SAMPLERS.items() for sampler in samplers]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("error", [0.0, 0.02])
@pytest.mark.parametrize("steps", [20, 300])
@pytest.mark.parametrize(("prediction", "sampler"), PAIRS)
def test_samples_of_a_network_that_knows_the_images_are_the_images(prediction, sampler, steps, error):
    """It predicts from what is noised, as in training, what `noised` says is to be predicted, up to an error."""
    diffusion, images = Diffusion(prediction), normal(2, 3, 8, 8) / 2

    def predict(noised, times):
        return exact(noised, times) * (1 + error)

    def exact(noised, times):
        if prediction == "flow":
            return (noised - images) / (times / 1000).view(-1, 1, 1, 1)
        alpha = diffusion._schedule.alphas_cumprod[times.long()].view(-1, 1, 1, 1)
        noise = (noised - alpha.sqrt() * images) / (1 - alpha).sqrt()
        return noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * images

    drawn = diffusion.sample(predict, normal(2, 3, 8, 8, seed=1), sampler, steps)
    torch.testing.assert_close(drawn, images, atol=0.4 if error else 0.02, rtol=0)


@pytest.mark.parametrize("prediction", list(SAMPLERS))
def test_noised_images_and_targets_belong_together(prediction):
    """Little noise leaves the images, much leaves none of them; both are recovered from what is predicted."""
    diffusion, images, noise = Diffusion(prediction), normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1)
    little = diffusion.noised(images, noise, torch.tensor([0.0, 0.0]))
    torch.testing.assert_close(little.images, images, atol=0.05, rtol=0)
    much = diffusion.noised(images, noise, torch.tensor([0.9999, 0.9999]))
    torch.testing.assert_close(much.images, noise, atol=0.01, rtol=0)
    assert diffusion.noised(images, noise, torch.tensor([1.0, 1.0])).images.isfinite().all()  # rounded up
    half = diffusion.noised(images, noise, torch.tensor([0.5, 0.5]))
    if prediction == "flow":
        torch.testing.assert_close(half.images + half.target / 2, noise)
        return
    alpha = diffusion._schedule.alphas_cumprod[500]
    mixed = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(half.images, mixed)
    expected = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * images
    torch.testing.assert_close(half.target, expected)


def test_what_a_decoder_draws_from():
    """Averages over patches, or all patches with their positions; of each target block."""
    context, target = small_encoder(), small_encoder().requires_grad_(False)
    with torch.no_grad():
        target.patch_embed.proj.weight.mul_(2)
    predictor = Predictor(24, 24, (3, 5), 12, 1, 3)
    images = normal(2, 5, 24, 40)
    chosen = Masks(torch.tensor([[0, 1, 14], [0, 1, 2]]), torch.tensor([[[6, 7], [8, 13]], [[11, 12], [10, 11]]]))
    features = target(images)
    predictions = predictor(context(images, chosen.context), chosen.context, chosen.targets)
    expected = {
        "image": features[:, None].expand(-1, 2, -1, -1),
        "target": gather(features, chosen.targets),
        "prediction": predictions,
        "nothing": torch.zeros(2, 2, 1, 24),
    }
    patches = chosen.targets.flatten(0, 1)
    for name, tokens in expected.items():
        for pooled in (True, False):
            found = Conditions(name, pooled, (3, 5), target, context, predictor)
            assert found.width == 24
            assert not any(parameter.requires_grad for parameter in found.parameters())
            made = found(images, chosen)
            flat = tokens.flatten(0, 1)
            torch.testing.assert_close(made.tokens, flat.mean(1, keepdim=True) if pooled else flat)
            assert made.positions.shape == (4, made.tokens.shape[1], 4)
            torch.testing.assert_close(made.blocks, boxes(patches, (3, 5)))
            if name in ("target", "prediction"):
                each = boxes(patches[..., None], (3, 5))
                torch.testing.assert_close(made.positions, made.blocks[:, None] if pooled else each)
            if name == "image" and pooled:
                torch.testing.assert_close(made.positions, torch.tensor([0.0, 0, 1, 1]).expand(4, 1, 4))
    assert torch.equal(made.repeated(2).blocks, made.blocks[[0, 0, 1, 1, 2, 2, 3, 3]])


def test_boxes():
    """Of patches in a grid of 3 rows and 4 columns."""
    found = boxes(torch.tensor([[5, 6, 9, 10], [0, 1, 4, 5]]), (3, 4))
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 1 / 4, 1, 3 / 4], [0, 0, 2 / 3, 1 / 2]]))


def test_pictures_of_blocks_are_the_images_pixels():
    images = normal(2, 3, 24, 24)
    positions = torch.tensor([[0.0, 0.5, 0.5, 1.0], [0.25, 0.25, 0.75, 0.75]])
    found = pictures(images, positions, 12, "block")
    torch.testing.assert_close(found[0], images[0, :, :12, 12:], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], images[1, :, 6:18, 6:18], atol=1e-5, rtol=0)
    torch.testing.assert_close(pictures(images, positions, 24, "image"), images)
    shrunk = pictures(images, positions, 6, "block", oversampling=2)
    torch.testing.assert_close(shrunk[0], F.avg_pool2d(images[0, :, :12, 12:], 2), atol=1e-5, rtol=0)


def decoder(shown="block"):
    """With other weights than zeros where a decoder begins with zeros."""
    torch.manual_seed(0)
    network = SketchDecoder(3, 8, 24, shown, 4, 16, 1, 2)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def test_a_new_decoder_predicts_zeros():
    network = SketchDecoder(3, 8, 24, "block", 4, 16, 2, 2)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    found = network(normal(1, 3, 8, 8), torch.tensor([10.0]), Representation(normal(1, 3, 24), whole[:, None], whole))
    assert torch.equal(found, torch.zeros(1, 3, 8, 8))


def test_a_decoder_from_which_the_representation_is_withheld_does_not_use_it():
    network, noised, times = decoder(), normal(2, 3, 8, 8), torch.tensor([10.0, 500.0])
    blocks = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    positions = torch.stack([blocks, blocks], dim=1)
    one, other = (Representation(normal(2, 2, 24, seed=seed), positions, blocks) for seed in (1, 2))
    withheld = torch.tensor([True, False])
    found = [network(noised, times, each, withheld) for each in (one, other)]
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1])
    plain, without = network(noised, times, one), network(noised, times, one, torch.tensor([True, True]))
    torch.testing.assert_close(network.guided(noised, times, one, 1.0), plain)
    torch.testing.assert_close(network.guided(noised, times, one, 0.0), without)
    torch.testing.assert_close(network.guided(noised, times, one, 3.0), without + 3 * (plain - without))


def test_a_decoder_uses_positions():
    """Of the block in the image, and of each token in the block; tokens have no order of their own."""
    network, noised, times = decoder(), normal(1, 3, 8, 8), torch.tensor([10.0])
    tokens, block = normal(1, 2, 24), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    positions = torch.tensor([[[0.0, 0.0, 0.25, 0.5], [0.25, 0.0, 0.5, 0.5]]])
    plain = network(noised, times, Representation(tokens, positions, block))
    swapped = network(noised, times, Representation(tokens[:, [1, 0]], positions[:, [1, 0]], block))
    torch.testing.assert_close(swapped, plain)
    assert not torch.allclose(network(noised, times, Representation(tokens, positions[:, [1, 0]], block)), plain)
    moved = Representation(tokens, positions + 0.5, block + 0.5)  # the same positions within the block
    torch.testing.assert_close(network._in_picture(*moved[1:]), network._in_picture(positions, block))
    assert not torch.allclose(network(noised, times, moved), plain)


def test_a_decoder_of_whole_images_sees_where_the_block_is():
    inside = decoder("image")._inside(torch.tensor([[0.25, 0.5, 1.0, 0.75]]))
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 2:, 4:6] = 1
    assert torch.equal(inside, expected)
