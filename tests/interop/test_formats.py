"""Weights between formats, with timm, transformers and onnxruntime as judges."""

import json

import onnxruntime
import pytest
import timm
import torch
import transformers
from helpers import EXACT, assert_same
from PIL import Image
from safetensors.torch import load_file, save_file

import ijepa
from ijepa.interop import loading, meta, weights
from ijepa.interop import timm as of_timm
from ijepa.interop.__main__ import main
from ijepa.interop.card import MARK
from ijepa.models.jepa import JEPA
from ijepa.models.positions import sincos_2d
from ijepa.models.predictor import Predictor
from ijepa.models.pretrained import Spec
from ijepa.util.errors import UserError

CLOSE = {"atol": 1e-5, "rtol": 0}
SHAPES = {  # images, patches, channels, positions, their grid
    "square": ((32, 32), 8, 3, "index", None),
    "wide": ((24, 40), 8, 3, "index", None),
    "scaled": ((24, 40), 8, 4, "scaled", (6, 7)),
    "grey": ((16, 16), 4, 1, "index", None),
    "twelve": ((16, 24), 8, 12, "scaled", None),
}


def spec_of(name):
    size, patch, channels, positions, grid = SHAPES[name]
    mean, std = (0.1, 0.2, 0.3, 0.4) * 3, (0.5, 0.6, 0.7, 0.8) * 3
    return Spec(size, patch, channels, 48, 2, 3, 4.0, positions, grid, mean[:channels], std[:channels], 0.9)


def networks(spec, seed=0):
    """Three different networks, every parameter of which is far from its start."""
    torch.manual_seed(seed)
    predictor = Predictor(spec.width, spec.width, spec.grid, 24, 2, spec.heads, positions=spec.positions,
                          position_grid=spec.position_grid)  # fmt: skip
    jepa = JEPA(spec.build(), predictor)
    for parameter in jepa.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return jepa


def saved(spec, folder, seed=0):
    """A training run's checkpoint, and its networks."""
    jepa = networks(spec, seed)
    state = {f"jepa.{name}": tensor for name, tensor in jepa.state_dict().items()}
    torch.save({weights.SPEC_KEY: spec.plain(), "state_dict": state, "global_step": 7}, folder / "run.ckpt")
    return folder / "run.ckpt", jepa


@pytest.fixture(params=list(SHAPES))
def run(request, tmp_path):
    spec = spec_of(request.param)
    return spec, *saved(spec, tmp_path)


def convert(*arguments):
    assert main(["convert", *map(str, arguments)]) == 0


def images_of(spec, count=3):
    return torch.rand(count, spec.channels, *spec.image_size)


def normalised(spec, images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return (images - mean) / std


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
    found = of_timm.of_model(judge, judge.pretrained_cfg, "vit_x.in1k_ijepa")
    assert list(found.encoders) == ["context"]  # as timm's I-JEPA weights are
    assert found.spec.eval_crop == judge.pretrained_cfg["crop_pct"]
    assert found.spec.mean == judge.pretrained_cfg["mean"]


@pytest.mark.parametrize("which", ["target", "context"])
def test_transformers(run, tmp_path, which):
    spec, file, jepa = run
    encoder = jepa.target_encoder if which == "target" else jepa.context_encoder
    out = tmp_path / "hf"
    convert(file, out, "--to", "transformers", "--encoder", which)
    judge, info = transformers.IJepaModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())  # nothing missing, nothing unexpected
    assert judge.config.layer_norm_eps == 1e-6
    images = images_of(spec)
    with torch.no_grad():
        features = encoder(normalised(spec, images))
        torch.testing.assert_close(judge.eval()(normalised(spec, images)).last_hidden_state, features, **CLOSE)
    back = loading.read_weights(loading.select_file(out))
    assert back.spec == spec
    assert_same(back.encoder(which), encoder.state_dict(), **EXACT)
    # and what transformers writes itself, in its own layouts
    judge.save_pretrained(tmp_path / "again")
    theirs = loading.read_weights(loading.select_file(tmp_path / "again"))
    assert_same(theirs.encoder(which), encoder.state_dict(), **EXACT)
    described = json.loads((tmp_path / "again" / "config.json").read_text())
    described.pop(weights.SPEC_KEY, None)
    (tmp_path / "again" / "config.json").write_text(json.dumps(described))
    save_file(dict(judge.state_dict()), tmp_path / "again" / "model.safetensors")  # names as in memory
    plain = loading.read_weights(loading.select_file(tmp_path / "again"))
    assert_same(plain.encoder("target"), encoder.state_dict(), **EXACT)
    assert plain.spec.image_size == spec.image_size
    assert any("context encoders" in note for note in plain.notes)


@pytest.mark.parametrize("name", ["square", "wide", "scaled", "grey", "twelve"])
def test_image_processors(tmp_path, name, capsys):
    spec = spec_of(name)
    file, _ = saved(spec, tmp_path)
    convert(file, tmp_path / "hf", "--to", "transformers")
    output = capsys.readouterr().out
    processor = tmp_path / "hf" / "preprocessor_config.json"
    if spec.channels == 12:
        assert not processor.exists()
        assert "transformers has no image processor for 12 channels" in output
        return
    judge = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[spec.channels]
    height, width = spec.image_size
    values = torch.randint(0, 256, (height, width, spec.channels), dtype=torch.uint8)
    image = Image.fromarray(values.squeeze(-1).numpy(), mode)
    given = judge(image, return_tensors="pt")["pixel_values"] if spec.channels != 1 else judge(
        values.permute(2, 0, 1), input_data_format="channels_first", return_tensors="pt")["pixel_values"]  # fmt: skip
    expected = normalised(spec, values.permute(2, 0, 1)[None].float() / 255)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("name", ["wide", "twelve"])
def test_onnx(tmp_path, name):
    spec = spec_of(name)
    file, jepa = saved(spec, tmp_path)
    convert(file, tmp_path / "e.onnx", "--to", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "e.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "e.onnx", "run.ckpt"]
    for count in (1, 5):
        images = images_of(spec, count)
        (features,) = session.run(["features"], {"images": images.numpy()})
        with torch.no_grad():
            expected = jepa.target_encoder(normalised(spec, images))
        torch.testing.assert_close(torch.from_numpy(features), expected, **CLOSE)


@pytest.mark.parametrize("name", ["square", "scaled"])
def test_torch_export(tmp_path, name):
    spec = spec_of(name)
    file, jepa = saved(spec, tmp_path)
    convert(file, tmp_path / "e.pt2", "--to", "torch-export", "--encoder", "context")
    program = torch.export.load(tmp_path / "e.pt2").module()
    for count in (1, 5):
        images = images_of(spec, count)
        with torch.no_grad():
            torch.testing.assert_close(
                program(images), jepa.context_encoder(normalised(spec, images)), **CLOSE)  # fmt: skip


def test_large_weights_of_onnx_stand_beside(tmp_path, monkeypatch):
    monkeypatch.setattr("ijepa.interop.programs.LARGEST", 1000)
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, tmp_path / "e.onnx", "--to", "onnx")
    assert (tmp_path / "e.onnx.data").stat().st_size > 100_000
    onnxruntime.InferenceSession(tmp_path / "e.onnx")


def test_safetensors_and_cards(run, tmp_path, capsys):
    spec, file, jepa = run
    out = tmp_path / "deep" / "encoder.safetensors"
    convert(file, out, "--to", "safetensors")
    encoder = ijepa.load_encoder(out)
    assert_same(encoder.encoder.state_dict(), jepa.target_encoder.state_dict(), **EXACT)
    card = (out.parent / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch\n")
    assert "the target encoder" in card
    assert f"[B, {spec.channels}, " not in card  # any image will do
    (out.parent / "README.md").write_text("mine")
    convert(file, out, "--to", "safetensors", "--overwrite")
    assert (out.parent / "README.md").read_text() == "mine"
    assert MARK in (out.parent / "encoder.safetensors.md").read_text()


@pytest.mark.parametrize("to", ["timm", "transformers", "torch-export", "safetensors"])
def test_the_card_s_code_runs(tmp_path, to, monkeypatch):
    spec = spec_of("wide")
    file, _ = saved(spec, tmp_path)
    name = {"timm": "vit.safetensors", "transformers": "hf", "torch-export": "e.pt2"}.get(to, "e.safetensors")
    convert(file, tmp_path / name, "--to", to)
    card = ((tmp_path / name if to == "transformers" else tmp_path) / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    known = {"images": images_of(spec), "image": Image.new("RGB", (60, 50))}
    exec(code, known)  # a card that this software wrote
    assert known["features"].shape[1:] == (15, 48)


def test_positions_are_recognised():
    for grid in ((1, 4), (4, 4), (3, 5), (5, 3), (2, 12)):
        table = sincos_2d(48, grid)
        assert weights.placed(table) == (grid, "index", None)
        assert weights.placed(table[None].bfloat16()) == (grid, "index", None)
        for onto in ((4, 4), (16, 14), (2, 3)):
            if onto != grid:
                assert weights.placed(sincos_2d(48, grid, onto)) == (grid, "scaled", onto)
    with pytest.raises(ValueError, match="not the fixed sin-cos ones"):
        weights.placed(torch.randn(1, 12, 48))


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
    judge = timm.models.VisionTransformer(**of_timm.arguments(encoder.spec)).eval()
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
