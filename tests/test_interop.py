"""Weights between formats, with timm, transformers and onnxruntime as judges."""

import argparse
import errno
import http.server
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import timm
import torch
from conftest import EXACT, ROOT, assert_same
from PIL import Image
from safetensors.torch import load_file, save_file

import ijepa
from ijepa import checkpoint, files
from ijepa.errors import UserError
from ijepa.interop import meta, reading, weights
from ijepa.interop import timm as of_timm
from ijepa.interop.__main__ import main
from ijepa.interop.card import MARK
from ijepa.models.jepa import JEPA
from ijepa.models.positions import sincos_2d
from ijepa.models.predictor import Predictor
from ijepa.models.pretrained import Spec

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
    back = checkpoint.read(out, heads=3)
    assert_same(back.encoder(which), encoder.state_dict(), **EXACT)
    grid = spec.position_grid if spec.position_grid != spec.grid else None
    assert (back.spec.positions, back.spec.position_grid) == (spec.positions, grid) or spec.position_grid is None
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
    transformers = pytest.importorskip("transformers")
    spec, file, jepa = run
    encoder = jepa.target_encoder if which == "target" else jepa.context_encoder
    out = tmp_path / "hf"
    convert(file, out, "--to", "transformers", "--encoder", which)
    judge, loading = transformers.IJepaModel.from_pretrained(out, output_loading_info=True)
    assert not any(loading.values())  # nothing missing, nothing unexpected
    assert judge.config.layer_norm_eps == 1e-6
    images = images_of(spec)
    with torch.no_grad():
        features = encoder(normalised(spec, images))
        torch.testing.assert_close(judge.eval()(normalised(spec, images)).last_hidden_state, features, **CLOSE)
    back = checkpoint.read(checkpoint.find(out))
    assert back.spec == spec
    assert_same(back.encoder(which), encoder.state_dict(), **EXACT)
    # and what transformers writes itself, in its own layouts
    judge.save_pretrained(tmp_path / "again")
    theirs = checkpoint.read(checkpoint.find(tmp_path / "again"))
    assert_same(theirs.encoder(which), encoder.state_dict(), **EXACT)
    described = json.loads((tmp_path / "again" / "config.json").read_text())
    described.pop(weights.SPEC_KEY, None)
    (tmp_path / "again" / "config.json").write_text(json.dumps(described))
    save_file(dict(judge.state_dict()), tmp_path / "again" / "model.safetensors")  # names as in memory
    plain = checkpoint.read(checkpoint.find(tmp_path / "again"))
    assert_same(plain.encoder("target"), encoder.state_dict(), **EXACT)
    assert plain.spec.image_size == spec.image_size
    assert any("context encoders" in note for note in plain.notes)


@pytest.mark.parametrize("name", ["square", "wide", "scaled", "grey", "twelve"])
def test_image_processors(tmp_path, name, capsys):
    transformers = pytest.importorskip("transformers")
    spec = spec_of(name)
    file, _ = saved(spec, tmp_path)
    convert(file, tmp_path / "hf", "--to", "transformers")
    output = capsys.readouterr().out
    processor = tmp_path / "hf" / "preprocessor_config.json"
    if spec.channels == 12:
        assert not processor.exists()
        assert "images of 12 channels have no image processor" in output
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
        assert "square images alone" in capsys.readouterr().err
        assert not out.exists()
        return
    convert(file, out, "--to", "meta")
    again = checkpoint.read(out, heads=3)
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
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
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
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
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
    if to == "transformers":
        pytest.importorskip("transformers")
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


def fault(path, **options):
    with pytest.raises(UserError) as caught:
        ijepa.load_encoder(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


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
    assert "no tensor" in changed(lambda c: c["encoder"].update({"module.norm.bias": "x"}))
    turned = changed(lambda c: c["encoder"].update({"module.norm.bias": torch.zeros(3)}))
    assert "norm.bias of the context encoder does not fit" in turned
    assert "expected [48], found [3]" in turned
    assert "add heads=N" in fault(checkpoint_file)
    assert "no multiple of 4 and of 5 heads" in fault(checkpoint_file, heads=5)


FOREIGN = {  # what they have
    "vit_tiny_patch16_224": "class token",
    "vit_medium_patch16_gap_256": "layer scale",
    "vit_small_patch16_36x1_224": "class token",
    "vit_pwee_patch16_reg1_gap_256": "register tokens",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_vision_transformers(tmp_path, name):
    torch.save(timm.create_model(name, num_classes=0, depth=1).state_dict(), tmp_path / "x.pth")
    assert FOREIGN[name] in fault(tmp_path / "x.pth")


def test_learnt_positions_and_other_networks(tmp_path):
    path = tmp_path / "x.pth"
    options = {"class_token": False, "global_pool": "avg", "num_classes": 0, "depth": 1}
    torch.save(timm.create_model("vit_tiny_patch16_224", **options).state_dict(), path)
    assert "a norm after pooling" in fault(path)
    options["fc_norm"] = False
    torch.save(timm.create_model("vit_tiny_patch16_224", **options).state_dict(), path)
    assert ijepa.load_encoder(path).spec.positions == "stored"
    torch.save(timm.create_model("resnet10t").state_dict(), path)
    assert "expected the weights of an I-JEPA, found " in fault(path)
    save_file({"embeddings.patch_embeddings.projection.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    assert "give the folder" in fault(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert "expected model_type ijepa, found vit" in fault(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in fault(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "ijepa"}')
    assert "layer_norm_eps" in fault(tmp_path / "model.safetensors")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Two different encoders of one name, and a file that is cut off; their address on this machine, and folder."""
    monkeypatch.setenv("IJEPA_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "served"
    for seed, folder in enumerate("ab"):
        (root / folder).mkdir(parents=True)
        saved(spec_of("square"), root / folder, seed)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(root))

        def do_GET(self):
            if "cut" not in self.path:
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", root
        serving.shutdown()


def test_addresses(server, tmp_path):
    url, root = server
    for folder in "ab":
        expected = ijepa.load_encoder(root / folder / "run.ckpt")
        found = ijepa.load_encoder(f"{url}/{folder}/run.ckpt")
        assert_same(found.state_dict(), expected.state_dict(), **EXACT)
    (root / "a" / "run.ckpt").unlink()
    ijepa.load_encoder(f"{url}/a/run.ckpt")  # is kept

    def kept():
        return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())

    before = kept()
    assert "cut off after 4 of 100000 bytes" in fault(f"{url}/cut.ckpt")
    assert "cannot be had (File not found)" in fault(f"{url}/none.ckpt")
    assert "names no file" in fault(f"{url}/")
    assert "no address" in fault("http://[bad/x.pth")
    assert "cannot be had" in fault("https://127.0.0.1:1/none.ckpt")
    assert kept() == before


@pytest.mark.parametrize("name", ["vit_huge_patch14_gap_224.in1k_ijepa", "timm/vit_huge_patch14_gap_224.in1k_ijepa"])
def test_timm_names(tmp_path, monkeypatch, name):
    monkeypatch.setenv("IJEPA_CACHE", str(tmp_path))

    def refused(*args, **kwargs):
        raise OSError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", refused)
    assert "(no network)" in fault(name)
    spec = Spec((32, 32), 8, 3, 48, 2, 3, 4.0, "index", None, (0.5,) * 3, (0.5,) * 3)
    encoder = spec.build()
    judge = timm.models.VisionTransformer(**of_timm.arguments(spec))
    judge.load_state_dict(of_timm.to_timm(encoder))
    judge.pretrained_cfg = {"mean": (0.4,) * 3, "std": (0.3,) * 3, "crop_pct": 0.9}
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: judge)
    with pytest.raises(UserError, match=r"^encoder=target: .* holds the context encoder alone"):
        ijepa.load_encoder(name)
    monkeypatch.setattr(timm, "create_model", refused)
    kept = ijepa.load_encoder(name, encoder="context")
    assert_same(kept.encoder.state_dict(), encoder.state_dict(), **EXACT)
    assert kept.spec.mean == (0.4,) * 3
    assert kept.spec.eval_crop == 0.9


def test_inspect(tmp_path, capsys, checkpoint_file):
    file, _ = saved(spec_of("scaled"), tmp_path)
    assert main(["inspect", str(file)]) == 0
    output = capsys.readouterr().out
    for text in ("step         7", "target encoder, context encoder, predictor", "24x40 pixels, 4 channels",
                 "sin-cos, scaled, mapped onto 6x7 patches", "0.1, 0.2, 0.3, 0.4; 0.5, 0.6, 0.7, 0.8"):  # fmt: skip
        assert text in output
    assert main(["inspect", str(checkpoint_file), "--heads", "3"]) == 0
    assert "8x8 patches of 8x8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "nowhere.pt"], "file=nowhere.pt: no such file or folder"),
        (["convert", "RUN", "x.txt", "--to", "timm"], "OUT=x.txt: should end in .safetensors, or in .pt"),
        (["convert", "RUN", "x.txt", "--to", "safetensors"], "OUT=x.txt: should end in .safetensors"),
        (["convert", "RUN", "RUN", "--to", "onnx"], "is there already; add --overwrite"),
        (["convert", "RUN", "RUN", "--to", "transformers"], "transformers wants a folder"),
        (["convert", "RUN", ".", "--to", "meta"], "is a folder; give a file in it"),
        (["convert", "RUN", "x", "--to", "keras"], "invalid choice: 'keras'"),
        (["convert", "RUN"], "required: OUT, --to"),
        (["inspect", "RUN", "--heads", "0"], "--heads=0: should be a whole number, 1 or more"),
        (["convert", "ALONE", "x.pth.tar", "--to", "meta"], "has no context and no predictor"),
        (["convert", "ALONE", "x.pth", "--to", "timm", "--encoder", "context"], "holds the target encoder alone"),
        ([], "required: inspect|convert"),
    ],
)
def test_mistakes(tmp_path, capsys, monkeypatch, arguments, says):
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, tmp_path / "alone.safetensors", "--to", "safetensors")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    given = {"RUN": str(file), "ALONE": str(tmp_path / "alone.safetensors")}
    before = sorted(tmp_path.iterdir())
    assert main([given.get(argument, argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_as_a_command(tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    result = subprocess.run([sys.executable, "-m", "ijepa.interop", "inspect", file], capture_output=True, text=True,
                            cwd=ROOT, timeout=100)  # fmt: skip
    assert result.returncode == 0
    assert "width 48, 2 blocks, 3 heads" in result.stdout
    assert reading.read(file).facts == {"step": 7}


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
    assert "no place for mean, std and heads" in capsys.readouterr().out


def test_common_shapes_of_timm_s_files(tmp_path):
    spec = replace(spec_of("square"), width=192)
    encoder = spec.build()
    state = of_timm.to_timm(encoder)

    def found(path):
        read = checkpoint.read(checkpoint.find(path))
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
        assert any("how many attention heads" in note for note in read.notes)
    assert found(tmp_path / "hub")[1].spec.mean == (0.4,) * 3
    save_file({name: tensor.bfloat16().float() for name, tensor in state.items()}, tmp_path / "rounded.safetensors")
    assert found(tmp_path / "rounded.safetensors")[1].spec.positions == "index"
    moved = {**state, "pos_embed": state["pos_embed"] + 0.001 * torch.randn_like(state["pos_embed"])}
    torch.save(moved, tmp_path / "tuned.pth")
    assert found(tmp_path / "tuned.pth")[1].spec.positions == "stored"
    file, _ = saved(spec_of("square"), tmp_path)
    with pytest.raises(UserError, match=f"^heads=6: checkpoint={file} has 3; leave it out"):
        ijepa.load_encoder(file, heads=6)


CHANGES = [
    {"patch_size": 0}, {"width": 0}, {"heads": 5}, {"heads": -3}, {"mean": 0.1}, {"mean": [0.1, 0.2]},
    {"std": [0, 1, 1]}, {"eval_crop": 0}, {"positions": "learnt"}, {"encoder": "foo"}, {"image_size": [30, 32]},
    {"depth": "two"},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_descriptions_that_were_changed(tmp_path, change):
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, tmp_path / "hf", "--to", "transformers")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config[weights.SPEC_KEY] |= change
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    fault(tmp_path / "hf")


KINDS = [{"hidden_act": "relu"}, {"num_attention_heads": -3}, {"num_attention_heads": "3"}, {"qkv_bias": False},
         {"layer_norm_eps": None}]  # fmt: skip


@pytest.mark.parametrize("change", KINDS)
def test_transformers_of_another_kind(tmp_path, change):
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, tmp_path / "hf", "--to", "transformers")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, **change}))
    fault(tmp_path / "hf")


def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    spec, out = spec_of("square"), tmp_path / "hf"
    file, _ = saved(spec, tmp_path, seed=1)
    convert(file, out, "--to", "transformers")
    transformers.IJepaModel.from_pretrained(out).save_pretrained(out, max_shard_size="50KB")
    assert (out / "model.safetensors.index.json").exists()
    (tmp_path / "other").mkdir()
    other, newer = saved(spec, tmp_path / "other", seed=3)
    convert(other, out, "--to", "transformers", "--overwrite")
    assert not list(out.glob("model-*"))
    assert_same(ijepa.load_encoder(out).encoder.state_dict(), newer.target_encoder.state_dict(), **EXACT)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ijepa.interop.transformers.write_json", interrupted)
    assert main(["convert", str(file), str(out), "--to", "transformers", "--overwrite"]) == 130
    assert main(["convert", str(file), str(tmp_path / "new"), "--to", "transformers"]) == 130
    assert not (tmp_path / "new").exists()
    assert_same(ijepa.load_encoder(out).encoder.state_dict(), newer.target_encoder.state_dict(), **EXACT)


@pytest.mark.parametrize("to", ["timm", "transformers", "meta", "torch-export", "safetensors"])
def test_places_that_cannot_be_written(tmp_path, to, capsys):
    file, _ = saved(spec_of("square"), tmp_path)
    name = {"timm": "x.pth", "safetensors": "x.safetensors"}.get(to, "x")
    for out in (file / name, f"/proc/nowhere/{name}"):
        assert main(["convert", str(file), str(out), "--to", to]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=0))

    def full(*args, **kwargs):
        raise RuntimeError("unexpected pos 12 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device.*x\.pth") as caught:
        files.write_pickle(tmp_path / "x.pth", {})
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_what_stands_beside_an_onnx_file_is_the_user_s(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    file, _ = saved(spec_of("square"), tmp_path)
    (tmp_path / "e.onnx.data").write_text("mine")
    assert main(["convert", str(file), str(tmp_path / "e.onnx"), "--to", "onnx"]) == 2
    assert "e.onnx.data stands beside it" in capsys.readouterr().err
    assert (tmp_path / "e.onnx.data").read_text() == "mine"


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_learnt_positions(tmp_path, size, capsys):
    """Fine-tuned networks, and others that learn theirs, are what they are in timm and transformers."""
    transformers = pytest.importorskip("transformers")
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
            assert "15 patches are no square" in fault(tmp_path / name, heads=3)
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
    assert "learnt, or fine-tuned" in capsys.readouterr().out
