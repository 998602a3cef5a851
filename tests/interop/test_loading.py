"""From where weights are read: files of strangers, addresses, timm's names."""

import http.server
import threading

import pytest
import timm
import torch
from helpers import EXACT, assert_same
from safetensors.torch import save_file
from weight_files import fault, saved, spec_of

import ijepa
from ijepa.interop import timm as of_timm
from ijepa.models.pretrained import Spec
from ijepa.util.errors import UserError


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
    judge = timm.models.VisionTransformer(**of_timm.constructor_arguments(spec))
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
