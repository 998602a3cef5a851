"""Weights to the reference implementation's layout and back."""

import pytest
import torch
from helpers import EXACT, assert_same
from weight_files import convert, fault

from ijepa.interop import loading, meta, weights
from ijepa.interop.command import main
from ijepa.models.jepa import JEPA
from ijepa.models.positions import sincos_2d
from ijepa.models.predictor import Predictor


def test_meta(run, tmp_path, capsys):
    spec, file, jepa = run
    out = tmp_path / "out.pth.tar"
    if spec.grid[0] != spec.grid[1]:
        assert main(["convert", str(file), str(out), "--to", "meta"]) == 2
        assert "square images only" in capsys.readouterr().err
        assert not out.exists()
        return
    convert(file, out, "--to", "meta")
    again = loading.read_weights(out, heads=3)
    assert_same(again.networks().state_dict(), jepa.state_dict(), **EXACT)
    assert again.spec.image_size == spec.image_size


def test_the_reference_s_checkpoint_there_and_back(checkpoint_file, tmp_path):
    """What the reference implementation loads, key by key and value by value."""
    original = torch.load(checkpoint_file, weights_only=True)
    convert(checkpoint_file, tmp_path / "a.pth.tar", "--to", "meta", "--heads", 3)
    written = torch.load(tmp_path / "a.pth.tar", weights_only=True)
    assert written.keys() == original.keys() | {weights.SPEC_KEY}  # which the reference does not look up
    for name in meta.NETWORKS:
        assert_same(written[name], original[name], atol=1e-6, rtol=0)


GIANTS = {"vit_huge": (1280, 32, 384, 12, 14), "vit_giant": (1408, 40, 384, 16, 16)}


@pytest.mark.parametrize("name", GIANTS)
def test_the_published_sizes_map_all_names_and_shapes(name):
    """ViT-H/14 and ViT-g/16 on the meta device; names and shapes from the published description (appendix A.1)."""
    width, depth, narrow, predictor_depth, patch = GIANTS[name]
    hidden = {1280: 5120, 1408: 6144}[width]
    patches = (224 // patch) ** 2

    def block(d, h):
        shapes = {"norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (h, d),
                  "mlp.fc2": (d, h)}  # fmt: skip
        return {**{f"{k}.weight": v for k, v in shapes.items()}, **{f"{k}.bias": v[:1] for k, v in shapes.items()}}

    def blocks(prefix, count, d, h):
        return {f"{prefix}.{i}.{name}": shape for i in range(count) for name, shape in block(d, h).items()}

    encoder = {
        "pos_embed": (1, patches, width), "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,), "norm.weight": (width,), "norm.bias": (width,),
        **blocks("blocks", depth, width, hidden),
    }  # fmt: skip
    predictor = {
        "mask_token": (1, 1, narrow), "predictor_pos_embed": (1, patches, narrow),
        "predictor_embed.weight": (narrow, width), "predictor_embed.bias": (narrow,),
        "predictor_norm.weight": (narrow,), "predictor_norm.bias": (narrow,),
        "predictor_proj.weight": (width, narrow), "predictor_proj.bias": (width,),
        **blocks("predictor_blocks", predictor_depth, narrow, 4 * narrow),
    }  # fmt: skip
    side = 224 // patch
    tables = {"pos_embed": sincos_2d(width, (side, side))[None],
              "predictor_pos_embed": sincos_2d(narrow, (side, side))[None]}  # fmt: skip

    def stored(shapes):
        return {f"module.{name}": tables.get(name, torch.empty(shape, device="meta")) for name, shape in shapes.items()}

    contents = {"encoder": stored(encoder), "predictor": stored(predictor), "target_encoder": stored(encoder)}
    found = meta.read(contents)
    assert (found.spec.width, found.spec.depth, found.spec.heads, found.spec.patch_size) == (width, depth, 16, patch)
    assert found.spec.image_size == (224, 224)
    with torch.device("meta"):
        jepa = JEPA(found.spec.build(), Predictor(width, width, found.spec.grid, narrow, predictor_depth, 16))
    written = meta.to_meta(jepa)
    for network, shapes in (("encoder", encoder), ("predictor", predictor), ("target_encoder", encoder)):
        mapped = {name.removeprefix("module."): tuple(tensor.shape) for name, tensor in written[network].items()}
        assert mapped == shapes


def test_the_reference_s_half_checkpoints(checkpoint_file, tmp_path):
    path = tmp_path / "half.pth.tar"

    def changed(change):
        contents = torch.load(checkpoint_file, weights_only=True)
        change(contents)
        torch.save(contents, path)
        return fault(path, heads=3)

    assert "found no predictor" in changed(lambda c: c.pop("predictor"))
    assert "pos_embed is missing" in changed(lambda c: c["target_encoder"].pop("module.pos_embed"))
    hole = changed(lambda c: c["target_encoder"].pop("module.blocks.1.attn.qkv.weight"))
    assert "blocks.1.attn.qkv.weight of the target encoder is missing" in hole
    assert "the context encoder has cls_token" in changed(lambda c: c["encoder"].update({"cls_token": torch.ones(1)}))
    assert "is not a tensor" in changed(lambda c: c["encoder"].update({"module.norm.bias": "x"}))
    turned = changed(lambda c: c["encoder"].update({"module.norm.bias": torch.zeros(3)}))
    assert "norm.bias of the context encoder does not match" in turned
    assert "expected [48], found [3]" in turned
    assert "add heads=N" in fault(checkpoint_file)
    assert "not a multiple of 4 and of 5 heads" in fault(checkpoint_file, heads=5)
