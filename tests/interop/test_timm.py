"""Weights to timm and back, with timm as judge."""

import argparse
import json
from dataclasses import replace

import pytest
import timm
import torch
from helpers import EXACT, assert_same
from safetensors.torch import load_file, save_file
from weight_files import CLOSE, convert, fault, images_of, normalised, saved, spec_of

import ijepa
from ijepa.interop import loading
from ijepa.interop import timm as of_timm
from ijepa.models.pretrained import Spec
from ijepa.util.errors import UserError


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("which", ["target", "context"])
def test_timm(run, tmp_path, which, suffix):
    spec, file, jepa = run
    encoder = jepa.target_encoder if which == "target" else jepa.context_encoder
    out = tmp_path / "out" / f"vit{suffix}"
    convert(file, out, "--to", "timm", "--encoder", which)
    judge = timm.models.VisionTransformer(
        img_size=spec.image_size, patch_size=spec.patch_size, in_chans=spec.channels, embed_dim=48, depth=2,
        num_heads=3, class_token=False, global_pool="avg", num_classes=0, fc_norm=False,
    ).eval()  # fmt: skip
    judge.load_state_dict(load_file(out) if suffix == ".safetensors" else torch.load(out), strict=True)
    images = images_of(spec)
    with torch.no_grad():
        features = encoder(normalised(spec, images))
        torch.testing.assert_close(judge.forward_features(normalised(spec, images)), features, **CLOSE)
        torch.testing.assert_close(judge(normalised(spec, images)), features.mean(1), **CLOSE)
    back = loading.read_weights(out, heads=3)
    assert_same(back.encoder(which), encoder.state_dict(), **EXACT)
    table = back.spec.build().positions(spec.grid, torch.device("cpu"))
    torch.testing.assert_close(table, encoder.positions(spec.grid, torch.device("cpu")), **CLOSE)
    if suffix == ".safetensors":
        assert back.spec == spec
    # and what timm itself saves, in half precision too
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in judge.state_dict().items()}}, tmp_path / "half.pth")
    half = ijepa.load_encoder(tmp_path / "half.pth", heads=3)
    assert half.spec.image_size == spec.image_size
    torch.testing.assert_close(half.encoder(normalised(spec, images)), features, atol=2e-2, rtol=0)


def test_a_model_that_timm_creates(tmp_path):
    spec = Spec((48, 48), 16, 3, 192, 12, 3, 4.0, "index", None, (0.5,) * 3, (0.5,) * 3)
    torch.manual_seed(0)
    encoder = spec.build().eval()
    of_timm.write(tmp_path / "vit.safetensors", encoder, spec, "target")
    judge = timm.create_model("vit_tiny_patch16_224", img_size=48, class_token=False, global_pool="avg", num_classes=0,
                              fc_norm=False).eval()  # fmt: skip
    judge.load_state_dict(load_file(tmp_path / "vit.safetensors"), strict=True)
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(judge.forward_features(images), encoder(images), **CLOSE)
    found = of_timm.read_model(judge, judge.pretrained_cfg, "vit_x.in1k_ijepa")
    assert list(found.encoders) == ["context"]  # as timm's I-JEPA weights are
    assert found.spec.eval_crop == judge.pretrained_cfg["crop_pct"]
    assert found.spec.mean == judge.pretrained_cfg["mean"]


FOREIGN = {  # what they have
    "vit_tiny_patch16_224": "class token",
    "vit_medium_patch16_gap_256": "layer scale",
    "vit_small_patch16_36x1_224": "class token",
    "vit_pwee_patch16_reg1_gap_256": "a norm after",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_vision_transformers(tmp_path, name):
    torch.save(timm.create_model(name, num_classes=0, depth=1).state_dict(), tmp_path / "x.pth")
    assert FOREIGN[name] in fault(tmp_path / "x.pth")


def test_common_shapes_of_timm_s_files(tmp_path):
    spec = replace(spec_of("square"), width=192)
    encoder = spec.build()
    state = of_timm.to_timm(encoder)

    def found(path):
        read = loading.read_weights(loading.select_file(path))
        return read.encoder("target"), read

    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}, tmp_path / "timm.pth")
    torch.save({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, tmp_path / "compiled.pth")
    (tmp_path / "hub").mkdir()
    save_file(state, tmp_path / "hub" / "model.safetensors")
    described = {"architecture": "vit_x", "pretrained_cfg": {"mean": [0.4] * 3, "std": [0.3] * 3, "crop_pct": 0.9}}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(described))
    for name in ("timm.pth", "compiled.pth", "hub"):
        tensors, read = found(tmp_path / name)
        assert_same(tensors, encoder.state_dict(), **EXACT)
        assert any("number of heads" in note for note in read.notes)
    assert found(tmp_path / "hub")[1].spec.mean == (0.4,) * 3
    save_file({name: tensor.bfloat16().float() for name, tensor in state.items()}, tmp_path / "rounded.safetensors")
    assert found(tmp_path / "rounded.safetensors")[1].spec.positions == "index"
    moved = {**state, "pos_embed": state["pos_embed"] + 0.001 * torch.randn_like(state["pos_embed"])}
    torch.save(moved, tmp_path / "tuned.pth")
    assert found(tmp_path / "tuned.pth")[1].spec.positions == "stored"
    file, _ = saved(spec_of("square"), tmp_path)
    with pytest.raises(UserError, match=f"^heads=6: checkpoint={file} has 3; omit it"):
        ijepa.load_encoder(file, heads=6)
