"""The card beside an export."""

import pytest
from helpers import EXACT, assert_same
from PIL import Image
from weight_files import convert, images_of, saved, spec_of

import ijepa
from ijepa.interop.card import MARKER


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
    assert MARKER in (out.parent / "encoder.safetensors.md").read_text()


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
