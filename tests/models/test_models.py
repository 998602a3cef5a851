import copy
import math

import numpy as np
import pytest
import timm
import torch
from helpers import train_config

from ijepa.interop.timm import to_timm
from ijepa.masking import Masks, MultiBlock
from ijepa.models.encoder import Encoder
from ijepa.models.jepa import JEPA
from ijepa.models.positions import sincos_2d
from ijepa.models.predictor import Predictor
from ijepa.models.transformer import gather
from ijepa.run import build


def encoder(image_size=(24, 40), patch=8, channels=5, width=24, depth=2, heads=3, **rest):
    torch.manual_seed(0)
    return Encoder(image_size, patch, channels, width, depth, heads, 4.0, **rest)


def by_hand(width, row, column):
    """The vector of one patch, written out."""
    quarter = width // 4
    vector = []
    for coordinate in (column, row):
        angles = [coordinate / 10000 ** (i / quarter) for i in range(quarter)]
        vector += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return torch.tensor(vector)


def test_positions_of_a_grid_that_is_not_square():
    table = sincos_2d(16, (3, 5))
    assert table.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            torch.testing.assert_close(table[row * 5 + column], by_hand(16, row, column), atol=1e-6, rtol=0)


def test_scaled_positions_map_patch_centres_onto_the_grid_of_pretraining():
    table = sincos_2d(16, (6, 5), reference=(3, 10))
    for row, column in ((0, 0), (5, 4), (2, 3)):
        expected = by_hand(16, (row + 0.5) / 2 - 0.5, (column + 0.5) * 2 - 0.5)
        torch.testing.assert_close(table[row * 5 + column], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(sincos_2d(16, (3, 5), reference=(3, 5)), sincos_2d(16, (3, 5)), atol=1e-6, rtol=0)


def test_context_encoder_sees_only_its_patches():
    network = encoder()
    images = torch.randn(2, 5, 24, 40)
    indices = torch.tensor([[0, 3, 7], [1, 2, 14]])
    features = network(images, indices)
    assert features.shape == (2, 3, 24)
    hidden = torch.ones(2, 15, dtype=torch.bool).scatter_(1, indices, False)
    noise = hidden.view(2, 1, 3, 5).repeat_interleave(8, 2).repeat_interleave(8, 3) * torch.randn(2, 5, 24, 40)
    assert torch.equal(network(images + noise, indices), features)
    everything = network(images, torch.arange(15).expand(2, -1))
    torch.testing.assert_close(everything, network(images), atol=1e-6, rtol=0)


def test_padding_changes_nothing():
    network = encoder()
    predictor = Predictor(24, 24, (3, 5), 12, 2, 3)
    images = torch.randn(1, 5, 24, 40)
    indices, targets = torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12]]])
    padded = torch.tensor([[2, 5, 9, 0, 0]])
    valid = torch.tensor([[True, True, True, False, False]])
    context, longer = network(images, indices), network(images, padded, valid)
    torch.testing.assert_close(longer[:, :3], context, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        predictor(longer, padded, targets, valid), predictor(context, indices, targets), atol=1e-6, rtol=0
    )


def test_each_block_is_predicted_on_its_own():
    network, predictor = encoder(), Predictor(24, 24, (3, 5), 12, 2, 3)
    indices, targets = torch.tensor([[2, 5, 9]]), torch.tensor([[[0, 1], [11, 12], [3, 4]]])
    context = network(torch.randn(1, 5, 24, 40), indices)
    together = predictor(context, indices, targets)
    assert together.shape == (1, 3, 2, 24)
    for block in range(3):
        alone = predictor(context, indices, targets[:, block : block + 1])
        torch.testing.assert_close(alone[:, 0], together[:, block], atol=1e-6, rtol=0)


def test_target_options():
    network = encoder()
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
    jepa = JEPA(encoder(), Predictor(24, 24, (3, 5), 12, 1, 3))
    with torch.no_grad():
        for parameter in jepa.context_encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = copy.deepcopy(jepa.target_encoder.state_dict())
    jepa.update_target_encoder(0.9)
    for name, tensor in jepa.target_encoder.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * jepa.context_encoder.state_dict()[name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)
    assert not any(parameter.requires_grad for parameter in jepa.target_encoder.parameters())


def test_initialisation():
    published, reference = (encoder(width=192, depth=4, init=init) for init in ("published", "reference"))
    for depth in range(4):
        for layer in ("attn.proj", "mlp.fc2", "attn.qkv"):
            scaled = published.get_submodule(f"blocks.{depth}.{layer}").weight.std().item()
            plain = reference.get_submodule(f"blocks.{depth}.{layer}").weight.std().item()
            shrunk = math.sqrt(2 * (depth + 1)) if layer != "attn.qkv" else 1.0
            assert scaled == pytest.approx(0.02 / shrunk, rel=0.03)
            assert plain == pytest.approx(0.02, rel=0.03)
    predictor = Predictor(24, 24, (3, 5), 192, 2, 3)
    assert predictor.blocks[1].mlp.fc2.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert predictor.proj.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_timm_agrees():
    network = encoder((32, 48), 8, 3, 48, 2, 3)
    judge = timm.models.VisionTransformer(
        (32, 48), 8, 3, embed_dim=48, depth=2, num_heads=3, class_token=False, global_pool="avg", num_classes=0,
        fc_norm=False,
    ).eval()  # fmt: skip
    judge.load_state_dict(to_timm(network), strict=True)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(judge.forward_features(images), network(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(judge(images), network(images).mean(1), atol=1e-5, rtol=0)


SIZES = {  # width, depth, heads, predictor width and depth, encoder's parameters in millions (without positions)
    "vit_micro": (96, 6, 3, 48, 3, 0.745),
    "vit_tiny": (192, 12, 3, 96, 6, 5.5),
    "vit_small": (384, 12, 6, 192, 6, 21.6),
    "vit_base": (768, 12, 12, 384, 6, 85.6),
    "vit_large": (1024, 24, 16, 384, 12, 303.1),
    "vit_huge": (1280, 32, 16, 384, 12, 630.8),
    "vit_giant": (1408, 40, 16, 384, 16, 1011.4),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_on_the_meta_device(name):
    config = train_config(f"model={name}", "data=folder", "data.root=X")
    with torch.device("meta"):
        jepa = build.networks(config)
    width, depth, heads, predictor_width, predictor_depth, millions = SIZES[name]
    network = jepa.context_encoder
    assert (network.width, network.depth, network.heads) == (width, depth, heads)
    assert (jepa.predictor.width, jepa.predictor.depth) == (predictor_width, predictor_depth)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    if name == "vit_giant":
        assert network.blocks[0].mlp.fc1.out_features == 6144  # 48 / 11 of 1408


def test_masks_fit_the_networks():
    sampler = MultiBlock((3, 5), 2, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), None, "keep")
    jepa = JEPA(encoder(), Predictor(24, 24, (3, 5), 12, 1, 3))
    predictions, targets, context = jepa(torch.randn(4, 5, 24, 40), sampler.sample(0, 0, np.arange(4)))
    assert predictions.shape == targets.shape
    assert context.shape[0] == 4
    assert predictions.isfinite().all()
