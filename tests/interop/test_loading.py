"""Files of strangers: what is read of them, from where, and how the others are refused; and the commands' mistakes."""

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
import transformers
from helpers import EXACT, ROOT, assert_same
from interop.test_formats import convert, saved, spec_of
from safetensors.torch import save_file

import ijepa
from ijepa.interop import loading, reading, weights
from ijepa.interop import timm as of_timm
from ijepa.interop.__main__ import main
from ijepa.models.pretrained import Spec
from ijepa.util import files
from ijepa.util.errors import UserError


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
    assert "norm.bias of the context encoder does not match" in turned
    assert "expected [48], found [3]" in turned
    assert "add heads=N" in fault(checkpoint_file)
    assert "not a multiple of 4 and of 5 heads" in fault(checkpoint_file, heads=5)


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
    assert "truncated after 4 of 100000 bytes" in fault(f"{url}/cut.ckpt")
    assert "could not be downloaded (File not found)" in fault(f"{url}/none.ckpt")
    assert "names no file" in fault(f"{url}/")
    assert "not a valid URL" in fault("http://[bad/x.pth")
    assert "could not be downloaded" in fault("https://127.0.0.1:1/none.ckpt")
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
    with pytest.raises(UserError, match=r"^encoder=target: .* contains only the context encoder"):
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
        (["convert", "RUN", "RUN", "--to", "onnx"], "exists; add --overwrite"),
        (["convert", "RUN", "RUN", "--to", "transformers"], "transformers needs a folder"),
        (["convert", "RUN", ".", "--to", "meta"], "is a folder; give a file in it"),
        (["convert", "RUN", "x", "--to", "keras"], "invalid choice: 'keras'"),
        (["convert", "RUN"], "required: OUT, --to"),
        (["inspect", "RUN", "--heads", "0"], "--heads=0: should be a whole number, 1 or more"),
        (["convert", "ALONE", "x.pth.tar", "--to", "meta"], "has no context and no predictor"),
        (["convert", "ALONE", "x.pth", "--to", "timm", "--encoder", "context"], "contains only the target encoder"),
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
    file, _ = saved(spec_of("square"), tmp_path)
    (tmp_path / "e.onnx.data").write_text("mine")
    assert main(["convert", str(file), str(tmp_path / "e.onnx"), "--to", "onnx"]) == 2
    assert "e.onnx.data stands beside it" in capsys.readouterr().err
    assert (tmp_path / "e.onnx.data").read_text() == "mine"


def test_nobody_has_to_read_it_all(tmp_path):
    file, _ = saved(spec_of("square"), tmp_path)
    command = [sys.executable, "-m", "ijepa.interop", "inspect", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
