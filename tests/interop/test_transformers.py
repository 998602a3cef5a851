"""Weights to transformers and back, with transformers as judge."""

import json

import pytest
import torch
import transformers
from helpers import EXACT, assert_same
from PIL import Image
from safetensors.torch import save_file
from weight_files import CLOSE, convert, fault, images_of, normalised, saved, spec_of

import ijepa
from ijepa.interop import loading, weights
from ijepa.interop.command import main


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
    given = judge(image, return_tensors="pt")["pixel_values"] if spec.channels == 3 else judge(
        values.permute(2, 0, 1), input_data_format="channels_first", return_tensors="pt")["pixel_values"]  # fmt: skip
    expected = normalised(spec, values.permute(2, 0, 1)[None].float() / 255)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


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
