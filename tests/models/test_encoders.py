"""Encoders other than the default one: registers, timm's vision transformers by name, and what none may leak."""

from dataclasses import replace

import pytest
import timm
import torch
from helpers import EXACT, assert_same
from timm.layers import Attention

from ijepa.interop.timm import constructor_arguments, to_timm
from ijepa.models.attention import attention_weights
from ijepa.models.encoder import Encoder
from ijepa.models.jepa import JEPA
from ijepa.models.predictor import Predictor
from ijepa.models.pretrained import Spec, untrained_encoder
from ijepa.models.protocol import PatchEncoder
from ijepa.models.timm_vit import TimmEncoder
from ijepa.training.flops import EncoderFlops, _meta_copy, count_flops
from ijepa.util.errors import ConfigError

GRID, PATCH = (4, 6), 8
SIZES = {"width": 24, "depth": 2, "heads": 3}
NAMES = (
    "vit_tiny_patch16_224",  # a class token
    "vit_small_patch14_reg4_dinov2",  # and registers, without positions; layer scale
    "vit_medium_patch16_gap_256",  # none, a norm after pooling
    "vit_base_patch16_clip_224",  # a norm before the blocks
    "vit_base_patch16_siglip_224",  # attention pooling, which is left out
    "deit_tiny_distilled_patch16_224",  # a distillation token
)


def registers(count=3):
    torch.manual_seed(0)
    return Encoder((32, 48), PATCH, 3, 24, 2, 3, 4.0, registers=count)


def of_timm(name):
    torch.manual_seed(0)
    return TimmEncoder(name, (32, 48), PATCH, 3, SIZES)


MADE = {"registers": registers, **{name: lambda name=name: of_timm(name) for name in NAMES}}


@pytest.mark.parametrize("name", MADE)
def test_masked_patches_do_not_leak(name):
    network = MADE[name]().eval()
    assert isinstance(network, PatchEncoder)
    assert (network.width, network.depth, network.grid_of(32, 48)) == (24, 2, GRID)
    images = torch.randn(2, 3, 32, 48)
    indices = torch.tensor([[0, 3, 7], [1, 2, 23]])
    features = network(images, indices)
    hidden = torch.ones(2, 24, dtype=torch.bool).scatter_(1, indices, False)
    noise = hidden.view(2, 1, *GRID).repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3) * torch.randn(images.shape)
    assert features.shape == (2, 3, 24)
    assert torch.equal(network(images + noise, indices), features)
    close = {"atol": 1e-5, "rtol": 0}
    whole = network(images)
    assert whole.shape == (2, 24, 24)
    torch.testing.assert_close(network(images, torch.arange(24).expand(2, -1)), whole, **close)
    several = network(images, indices[:, None].expand(-1, 2, -1))
    torch.testing.assert_close(several, features[:, None].expand(-1, 2, -1, -1), **close)
    padded, valid = torch.cat([indices, indices[:, :2]], 1), torch.tensor([True] * 3 + [False] * 2).expand(2, -1)
    torch.testing.assert_close(network(images, padded, valid)[:, :3], features, **close)
    torch.testing.assert_close(network(images, last=2)[..., 24:], whole, **close)
    assert network(torch.randn(1, 3, 48, 48)).shape == (1, 36, 24)  # positions of another grid


@pytest.mark.parametrize("name", MADE)
def test_every_weight_is_trained(name):
    jepa = JEPA(MADE[name](), Predictor(24, 24, GRID, 12, 1, 3))
    jepa.context_encoder(torch.randn(1, 3, 32, 48), torch.tensor([[1, 5]])).pow(2).sum().backward()
    assert [name for name, p in jepa.context_encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_timm_encoder_is_timm_s_model(name):
    network = of_timm(name).eval()
    spec = Spec((32, 48), PATCH, 3, 24, 2, 3, 4.0, "stored", None, (0.5,) * 3, (0.5,) * 3, 1.0, 0, "timm", name, SIZES)
    judge = timm.create_model(name, **constructor_arguments(spec)).eval()
    missing, extra = judge.load_state_dict(to_timm(network), strict=False)
    assert extra == []
    assert all(name.startswith("attn_pool.") for name in missing)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        expected = judge.fc_norm(judge.forward_features(images))[:, judge.num_prefix_tokens :]
        torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=0)
    assert Spec.of(spec.plain()) == spec
    first, second = (untrained_encoder(spec, 1).encoder.state_dict() for _ in range(2))
    assert_same(first, second, **EXACT)


def test_the_untrained_encoder_has_the_run_s_initialisation():
    """Else a trained encoder would be compared with a worse one than it started from."""
    published = Spec((16, 24), 8, 3, 24, 1, 3, 4.0, "index", None, (0.5,) * 3, (0.5,) * 3)
    assert "init" not in published.plain()
    xavier = replace(published, init="xavier")
    assert Spec.of(xavier.plain()) == xavier
    scale = {spec.init: untrained_encoder(spec, 0).encoder.blocks[0].attn.proj.weight.std().item()
             for spec in (published, xavier)}  # fmt: skip
    assert scale["published"] == pytest.approx(0.02 / 2**0.5, rel=0.1)
    assert scale["xavier"] == pytest.approx((2 / 48) ** 0.5, rel=0.1)
    with pytest.raises(ValueError, match="init=zeros is not possible"):
        Spec.of({**xavier.plain(), "init": "zeros"})
    with pytest.raises(ValueError, match=r"^positions=\\x00\\n is not possible$"):
        Spec.of({**xavier.plain(), "positions": "\0\n"})


def test_registers_are_timm_s():
    network = registers().eval()
    spec = Spec((32, 48), PATCH, 3, 24, 2, 3, 4.0, "index", None, (0.5,) * 3, (0.5,) * 3, registers=3)
    judge = timm.models.VisionTransformer(**constructor_arguments(spec)).eval()
    judge.load_state_dict(to_timm(network), strict=True)
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(judge.forward_features(images)[:, 3:], network(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(judge(images), network(images).mean(1), atol=1e-5, rtol=0)


def test_no_registers_no_change():
    none, some = registers(0), registers(2)
    state = some.state_dict()
    assert state.pop("reg_token").shape == (1, 2, 24)
    assert_same(none.state_dict(), state, **EXACT)
    plain = Spec((32, 48), PATCH, 3, 24, 2, 3, 4.0, "index", None, (0.5,) * 3, (0.5,) * 3)
    assert not plain.plain().keys() & {"registers", "kind", "name", "options"}  # as files of before
    assert Spec.of(plain.plain()) == plain


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet18", "model.name=resnet18: is not a timm VisionTransformer; try "),
        ("swin_tiny_patch4_window7_224", "model.name=swin_.*: is not a timm VisionTransformer; try "),
        ("vit_small_r26_s32_224", "model.name=vit_small_r26_s32_224: is not a timm VisionTransformer; try "),
        ("vit_smal_patch16_224", "model.name=.*: timm has no such model; try vit_small_patch16_224"),
        ("nothing", "model.name=nothing: timm has no such model; try vit_small_patch16_224"),
    ],
)
def test_other_models_are_refused(name, line):
    with pytest.raises(ConfigError, match=line):
        of_timm(name)


@pytest.mark.parametrize("options", [{"depth": 2, "heads": 5, "width": 24}, {"name": "x"}])
def test_impossible_descriptions_are_refused(options):
    values = Spec((32, 48), PATCH, 3, 24, 2, 3, 4.0, "stored", None, (0.5,) * 3, (0.5,) * 3).plain()
    with pytest.raises((ValueError, TypeError)):
        Spec.of({**values, "kind": "timm", "name": "vit_tiny_patch16_224", "options": options}).build()


@pytest.mark.parametrize("name", ["registers", "vit_tiny_patch16_224"])
def test_attention_among_patches(name):
    weights = attention_weights(MADE[name]().eval(), torch.randn(2, 3, 32, 48))
    assert weights.shape == (2, 3, 24, 24)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 24))


@pytest.mark.parametrize("registers", [0, 3])
def test_flops_of_the_method_are_those_that_torch_counts(registers):
    network = Encoder((32, 48), PATCH, 3, 48, 3, 3, 4.0, registers=registers)
    flops, image = EncoderFlops(network, (3, 32, 48)), (3, 32, 48)
    bare = _meta_copy(network)
    assert flops.step(9) == pytest.approx(count_flops(bare, image, 9, 1, backward=True), rel=0.005)
    assert flops.forward(4, 3) == pytest.approx(count_flops(bare, image, 4, 3, backward=False), rel=0.005)


def test_flops_of_others_are_counted():
    network = of_timm("vit_tiny_patch16_224")
    fused = [module.fused_attn for module in network.modules() if isinstance(module, Attention)]
    flops, same = EncoderFlops(network, (3, 32, 48)), EncoderFlops(registers(1), (3, 32, 48))
    for _ in range(2):  # the second from memory
        assert flops.step(9) == pytest.approx(same.step(9), rel=0.01)
        assert flops.forward(24) == pytest.approx(same.forward(24), rel=0.01)
    assert fused == [module.fused_attn for module in network.modules() if isinstance(module, Attention)]
    assert next(network.parameters()).device.type == "cpu"
