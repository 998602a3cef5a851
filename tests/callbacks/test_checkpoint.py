import json

import pytest
import torch
from helpers import train_config
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import ijepa
from ijepa.interop import timm
from ijepa.run import build
from ijepa.util.errors import UserError


@pytest.fixture
def exported(tmp_path):
    config = train_config("data=digits", "data.image_size=[16,32]", "model.width=24", "model.depth=2")
    torch.manual_seed(0)
    network = build.networks(config).target_encoder
    file = tmp_path / "encoder.safetensors"
    timm.write(file, network, build.spec(config.model, config.data), "target")
    return network, file, config


def test_round_trip(exported):
    network, file, config = exported
    encoder = ijepa.load_encoder(file)
    images = torch.rand(2, 1, 16, 32)
    normalised = (images - config.data.mean[0]) / config.data.std[0]
    torch.testing.assert_close(encoder(images), network(normalised), atol=1e-6, rtol=0)
    assert not encoder.training
    palette = Image.new("P", (60, 60), 3)
    palette.putpalette([0, 0, 0] * 3 + [255, 255, 255])
    assert encoder.transform(palette).min() == encoder.transform(Image.new("RGB", (60, 60), "white")).min() == 1
    picture = encoder.transform(Image.new("L", (60, 60), 255))
    assert picture.shape == (1, 16, 32)
    assert picture.max() == 1
    with safe_open(file, "pt") as opened:
        metadata = json.loads(opened.metadata()["ijepa_encoder"])
    assert metadata["mean"] == config.data.mean
    assert metadata["encoder"] == "target"


def test_other_resolutions(exported):
    _, file, _ = exported
    larger = torch.rand(1, 1, 32, 64)
    scaled, index = ijepa.load_encoder(file), ijepa.load_encoder(file, positions="index")
    assert scaled(larger).shape == (1, 128, 24)
    assert not torch.allclose(scaled(larger), index(larger))
    same = torch.rand(1, 1, 16, 32)
    torch.testing.assert_close(scaled(same), index(same), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="30x32 pixels cannot be divided"):
        scaled(torch.rand(1, 1, 30, 32))


@pytest.mark.parametrize(
    "fault",
    ["missing", "text", "truncated", "foreign safetensors", "foreign pickle", "a list", "empty folder", "context"],
)
def test_files_that_hold_no_encoder(exported, checkpoint_file, tmp_path, fault):
    _, file, _ = exported
    path, encoder = tmp_path / "x.ckpt", "target"
    if fault == "text":
        path.write_text("nothing")
    elif fault == "truncated":
        path = tmp_path / "half.pth.tar"
        path.write_bytes(checkpoint_file.read_bytes()[:50_000])
    elif fault == "foreign safetensors":
        path = tmp_path / "x.safetensors"
        save_file({"a": torch.zeros(2)}, path)
    elif fault == "foreign pickle":
        torch.save({"model": {"a": torch.zeros(2)}}, path)
    elif fault == "a list":
        torch.save([1, 2], path)
    elif fault == "empty folder":
        path.mkdir()
    elif fault == "context":
        path, encoder = file, "context"
    with pytest.raises(UserError) as caught:
        ijepa.load_encoder(path, encoder=encoder)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"width": 48}, {"heads": 5}, {"depth": "two"}, {"image_size": None}, {"more": 1}, None]
)
def test_descriptions_that_do_not_fit_the_weights(exported, tmp_path, change):
    _, file, _ = exported
    with safe_open(file, "pt") as opened:
        metadata, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    description = "{" if change is None else json.dumps({**json.loads(metadata["ijepa_encoder"]), **change})
    save_file(tensors, tmp_path / "x.safetensors", {**metadata, "ijepa_encoder": description})
    with pytest.raises(UserError, match=r"^checkpoint=.*x.safetensors: .* not? .*") as caught:
        ijepa.load_encoder(tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_the_reference_s_checkpoints_are_evaluated_as_published(checkpoint_file):
    encoder = ijepa.load_encoder(checkpoint_file, heads=3)
    assert encoder.spec.eval_crop == 0.875
    assert encoder.spec.positions == "scaled"  # a random encoder beside it has the same positions


def test_no_code_runs_from_a_file(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    torch.save({"state_dict": Bomb()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="more than tensors"):
        ijepa.load_encoder(tmp_path / "x.ckpt")
