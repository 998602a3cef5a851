"""What weights say of themselves: positions, what a format cannot hold."""

import re
import time
import zipfile

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from weight_files import CLOSE, convert, images_of, normalised, saved, spec_of

import ijepa
from ijepa.interop import timm as of_timm
from ijepa.interop import weights
from ijepa.interop.command import main
from ijepa.models.positions import sincos_2d
from ijepa.util.errors import UserError


def test_positions_are_recognised():
    for grid in ((1, 4), (4, 4), (3, 5), (5, 3), (2, 12)):
        table = sincos_2d(48, grid)
        assert weights.recognise_sincos(table) == (grid, "index", None)
        assert weights.recognise_sincos(table[None].bfloat16()) == (grid, "index", None)
        for onto in ((4, 4), (16, 14), (2, 3)):
            if onto != grid:
                assert weights.recognise_sincos(sincos_2d(48, grid, onto)) == (grid, "scaled", onto)
    with pytest.raises(ValueError, match="not the fixed sin-cos ones"):
        weights.recognise_sincos(torch.randn(1, 12, 48))


def test_what_a_format_cannot_hold_is_said(tmp_path, capsys):
    """Mean and std travel with Meta's layout; a bare state dict has no place for them."""
    spec = spec_of("square")
    file, jepa = saved(spec, tmp_path)
    convert(file, tmp_path / "m.pth.tar", "--to", "meta")
    images = images_of(spec)
    with torch.no_grad():
        expected = jepa.target_encoder(normalised(spec, images))
    torch.testing.assert_close(ijepa.load_encoder(tmp_path / "m.pth.tar")(images), expected, **CLOSE)
    assert "note" not in capsys.readouterr().out
    convert(file, tmp_path / "t.pth", "--to", "timm")
    assert "cannot store mean, std and heads" in capsys.readouterr().out


@pytest.mark.integration
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_learnt_positions(tmp_path, size, capsys):
    """Fine-tuned networks, and others that learn theirs, are what they are in timm and transformers."""
    options = {"patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.IJepaConfig(
        **options, image_size=list(size), intermediate_size=192, layer_norm_eps=1e-6)  # fmt: skip
    judge = transformers.IJepaModel(config).eval()
    judge.save_pretrained(tmp_path / "hf")
    encoder = ijepa.load_encoder(tmp_path / "hf")
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = judge(normalised(encoder.spec, images)).last_hidden_state
    torch.testing.assert_close(encoder(images), expected, **CLOSE)
    for to, name in (("timm", "vit.pth"), ("safetensors", "e.safetensors"), ("transformers", "again"),
                     ("torch-export", "e.pt2")):  # fmt: skip
        convert(tmp_path / "hf", tmp_path / name, "--to", to)
        if to == "torch-export":
            torch.testing.assert_close(torch.export.load(tmp_path / name).module()(images), expected, **CLOSE)
        elif to != "timm" or size == (32, 32):
            torch.testing.assert_close(ijepa.load_encoder(tmp_path / name, heads=3)(images), expected, **CLOSE)
        else:
            with pytest.raises(UserError, match="15 patches are not a square grid"):
                ijepa.load_encoder(tmp_path / name, heads=3)
    judge = timm.models.VisionTransformer(**of_timm.constructor_arguments(encoder.spec)).eval()
    judge.load_state_dict(torch.load(tmp_path / "vit.pth"), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(judge.forward_features(normalised(encoder.spec, images)), expected, **CLOSE)
        larger = torch.rand(1, 3, 2 * size[0], 2 * size[1])
        judge.set_input_size((2 * size[0], 2 * size[1]))
        theirs = judge.forward_features(normalised(encoder.spec, larger))
        torch.testing.assert_close(encoder(larger), theirs, **CLOSE)  # both resample them
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "hf")]) == 0
    assert "learnt or fine-tuned" in capsys.readouterr().out


def test_quantised_sparse_and_spoilt_weights_are_refused(tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    contents = torch.load(file, weights_only=True)
    name = "jepa.target_encoder.blocks.1.mlp.fc1.weight"
    weight = contents["state_dict"][name]
    for kind, changed in (
        ("int8", (weight * 127).to(torch.int8)),
        ("float8_e4m3fn", weight.to(torch.float8_e4m3fn)),
        ("complex64", weight.to(torch.complex64)),
        ("sparse_coo", weight.to_sparse()),
    ):
        contents["state_dict"][name] = changed
        torch.save(contents, file)
        with pytest.raises(UserError, match=f"blocks.1.mlp.fc1.weight of the target encoder is stored as {kind}, not"):
            ijepa.load_encoder(file)
    for kind in (torch.bfloat16, torch.float64):
        contents["state_dict"][name] = weight.to(kind)
        torch.save(contents, file)
        assert ijepa.load_encoder(file).encoder.blocks[1].mlp.fc1.weight.dtype == torch.float32
    contents["state_dict"][name] = weight.clone().fill_(float("nan"))
    torch.save(contents, file)
    with pytest.raises(UserError, match=r"blocks\.1\.mlp\.fc1\.weight of the target encoder is not finite, as"):
        ijepa.load_encoder(file)
    assert ijepa.load_encoder(file, encoder="context") is not None


@pytest.mark.parametrize("fault", ["stride", "depth", "image", "width", "nested", "packed", "positions"])
def test_files_that_would_fill_the_memory(tmp_path, fault):
    """Small files that declare or unfold to more than there is: refused in one line, before it is taken."""
    file, jepa = saved(spec_of("square"), tmp_path)
    contents = torch.load(file, weights_only=True)
    expected = "not possible"
    if fault == "stride":
        name = "jepa.target_encoder.blocks.1.mlp.fc1.weight"
        contents["state_dict"][name] = torch.zeros(1).expand(2**24, 2**10)
        expected = f"{name} declares 68719476736 bytes, more than the file holds of it"
    elif fault == "positions":
        state = of_timm.to_timm(jepa.target_encoder)
        state["pos_embed"] = torch.zeros(1, 2**18 + 1, 48)
        contents, expected = state, "its position embeddings are for 262145 patches"
    elif fault in ("depth", "image", "width"):
        changed = {"depth": 10**6, "image_size": [20000, 20000], "width": 60000, "heads": 3}
        key = {"image": "image_size"}.get(fault, fault)
        contents[weights.SPEC_KEY] |= {key: changed[key]} | ({"depth": 1000} if fault == "width" else {})
    torch.save(contents, file)
    if fault == "nested":
        deep = "[" * 100_000 + "]" * 100_000
        save_file({"a": torch.zeros(1)}, file := tmp_path / "x.safetensors", {weights.SPEC_KEY: deep})
        expected = "in its metadata does not describe an encoder"
    elif fault == "packed":
        with zipfile.ZipFile(file) as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for part, content in parts.items():
                archive.writestr(part, content)
        expected = "is compressed, as torch does not write it"
    begun = time.monotonic()
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        ijepa.load_encoder(file, heads=3 if fault == "positions" else None)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 10
