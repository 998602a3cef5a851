"""The encoder: what it sees, how it begins, its sizes; judged by timm."""

import math

import pytest
import timm
import torch
from helpers import small_encoder, train_config

from ijepa.interop.timm import to_timm
from ijepa.models.predictor import Predictor
from ijepa.run import build


def test_context_encoder_sees_only_its_patches():
    network = small_encoder()
    images = torch.randn(2, 5, 24, 40)
    indices = torch.tensor([[0, 3, 7], [1, 2, 14]])
    features = network(images, indices)
    assert features.shape == (2, 3, 24)
    hidden = torch.ones(2, 15, dtype=torch.bool).scatter_(1, indices, False)
    noise = hidden.view(2, 1, 3, 5).repeat_interleave(8, 2).repeat_interleave(8, 3) * torch.randn(2, 5, 24, 40)
    assert torch.equal(network(images + noise, indices), features)
    everything = network(images, torch.arange(15).expand(2, -1))
    torch.testing.assert_close(everything, network(images), atol=1e-6, rtol=0)


def test_initialisation():
    published, reference = (small_encoder(width=192, depth=4, init=init) for init in ("published", "reference"))
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


def test_xavier_initialisation():
    """Variance 2 / (inputs + outputs); query, key and value each on their own."""
    network = small_encoder(width=192, depth=2, init="xavier")
    predictor = Predictor(192, 192, (3, 5), 96, 2, 3, init="xavier")
    cross = Predictor(192, 192, (3, 5), 96, 2, 3, init="xavier", attention="cross")
    for module, inputs, outputs in (
        (network.blocks[1].attn.qkv, 192, 192),
        (network.blocks[1].attn.proj, 192, 192),
        (network.blocks[1].mlp.fc1, 192, 768),
        (network.patch_embed.proj, 5 * 8 * 8, 192),
        (predictor.embed, 192, 96),
        (predictor.blocks[0].attn.qkv, 96, 96),
        (cross.blocks[0].attn.kv, 96, 96),
    ):
        assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (inputs + outputs)), rel=0.03)
        assert not module.bias.any()


def test_content_is_not_lost_beside_positions():
    """Small patches: at the start, most of the variance of the features is between images, not between positions."""
    images = torch.randn(32, 3, 32, 32)
    shares = {}
    for init in ("published", "xavier"):
        features = small_encoder((32, 32), 4, 3, 96, 6, init=init)(images)
        across = features.var(dim=0).mean()
        shares[init] = (across / (across + features.mean(dim=0).var(dim=0).mean())).item()
    assert shares["published"] < 0.5
    assert shares["xavier"] > 0.8


def test_whitened_initialisation():
    """Patches in which neighbours and channels are alike are embedded with about equal variance in all directions."""
    network = small_encoder((32, 32), 4, 3, 96, 2, init="whitened")
    torch.testing.assert_close(
        network.blocks[0].mlp.fc1.weight.std().item(), math.sqrt(2 / (96 + 384)), rtol=0.03, atol=0
    )
    at = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    alike = torch.kron(0.95 + 0.05 * torch.eye(3), 0.95 ** torch.cdist(at, at)).double()
    patches = torch.randn(4000, 48, dtype=torch.double) @ torch.linalg.cholesky(alike).T
    embedded = patches.float() @ network.patch_embed.proj.weight.flatten(1).T
    assert embedded.std().item() == pytest.approx(0.5, rel=0.1)
    spread = torch.linalg.eigvalsh(embedded.T.cov())[-48:]  # 48 pixels values: no more directions
    plain = torch.linalg.eigvalsh(patches.T.cov())
    assert plain.max() / plain.min() > 1000
    assert spread.max() / spread.min() < 15
    with torch.device("meta"):
        small_encoder((32, 32), 4, 3, 96, 2, init="whitened")  # as for counting FLOPs


def test_timm_agrees():
    network = small_encoder((32, 48), 8, 3, 48, 2, 3)
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
