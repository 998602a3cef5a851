"""ONNX and torch.export, with onnxruntime as judge."""

import onnxruntime
import pytest
import torch
from weight_files import CLOSE, convert, images_of, normalised, saved, spec_of

from ijepa.interop.command import main


@pytest.mark.integration
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


@pytest.mark.integration
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


@pytest.mark.integration
def test_large_weights_of_onnx_stand_beside(tmp_path, monkeypatch):
    monkeypatch.setattr("ijepa.interop.programs.MAX_INLINE_BYTES", 1000)
    file, _ = saved(spec_of("square"), tmp_path)
    convert(file, tmp_path / "e.onnx", "--to", "onnx")
    assert (tmp_path / "e.onnx.data").stat().st_size > 100_000
    onnxruntime.InferenceSession(tmp_path / "e.onnx")


def test_what_stands_beside_an_onnx_file_is_the_user_s(tmp_path, capsys):
    file, _ = saved(spec_of("square"), tmp_path)
    (tmp_path / "e.onnx.data").write_text("mine")
    assert main(["convert", str(file), str(tmp_path / "e.onnx"), "--to", "onnx"]) == 2
    assert "e.onnx.data exists in the same folder" in capsys.readouterr().err
    assert (tmp_path / "e.onnx.data").read_text() == "mine"
