"""Heads for depth and segmentation as files, and the maps that they predict."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from helpers import EXACT
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import ijepa
from ijepa.interop import dense, heads_file
from ijepa.interop.command import main
from ijepa.interop.dense import DenseDescription, DensePredictor, load_dense, write_dense
from ijepa.interop.reading import read_safetensors
from ijepa.models.pretrained import Spec, untrained_encoder
from ijepa.util.errors import UserError

SPEC = Spec((16, 16), 4, 3, 24, 2, 3, 4.0, "index", None, (0.5,) * 3, (0.5,) * 3)


def predictor(kind="segmentation", outputs=3, **options):
    torch.manual_seed(0)
    layers = options.get("layers", 1)
    head = nn.Linear(24 * layers, 1 if kind == "depth" else outputs)
    return DensePredictor(untrained_encoder(SPEC, 0), head, DenseDescription(kind, (16, 16), **options))


def picture(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["depth", "segmentation"])
def test_a_file_predicts_the_same(tmp_path, kind):
    made = predictor(kind, layers=2, crop=0.875, stretch=False, max_pixels=99, facts={"task": kind})
    write_dense(tmp_path / f"{kind}.safetensors", made)
    loaded = load_dense(tmp_path)
    assert loaded.description == made.description
    image = picture(30, 50)
    (expected,), (found,) = made.predict([image]), loaded.predict([image])
    assert torch.equal(found, expected)
    assert found.shape == (30, 50)
    assert found.dtype == (torch.float32 if kind == "depth" else torch.int64)
    assert kind == "segmentation" or found.min() > 0
    encoder = ijepa.load_encoder(tmp_path / f"{kind}.safetensors", positions="index")
    torch.testing.assert_close(encoder(image[None, :, :16, :16]), made.encoder(image[None, :, :16, :16]), **EXACT)
    assert ijepa.load_dense is load_dense


def test_extreme_values_are_refused(tmp_path):
    """As images of training are; the limit is stored with the head."""
    np.save(tmp_path / "a.npy", np.full((3, 20, 20), 1e30, np.float32))
    for limit in (1e4, 1e15):
        write_dense(tmp_path / "depth.safetensors", predictor("depth", max_deviations=limit))
        with pytest.raises(UserError, match=rf"a.npy: .* the mean in training, more than {limit:g}".replace("+", ".")):
            list(load_dense(tmp_path).predict(tmp_path / "a.npy"))


def test_windows_cover_an_image():
    """They overlap by a quarter at least, and are averaged there."""
    made = predictor("depth")
    image = picture(16, 20)
    left, right = made(torch.stack([image[:, :, :16], image[:, :, 4:]]))[:, 0]
    (found,) = made.predict([image])
    torch.testing.assert_close(found[:, :4].log(), left[:, :4])
    torch.testing.assert_close(found[:, 4:16].log(), (left[:, 4:] + right[:, :12]) / 2)
    torch.testing.assert_close(found[:, 16:].log(), right[:, 12:])
    assert dense._corners(picture(16, 32), (16, 16)) == [(0, 0), (0, 8), (0, 16)]
    for length in range(16, 90):
        starts = dense._starts(length, 16)
        assert (starts[0], starts[-1]) == (0, length - 16)
        assert all(0 < after - before <= 12 for before, after in itertools.pairwise(starts))
    whole = predictor("depth", stretch=True)
    assert next(whole.predict([picture(40, 20)])).shape == (40, 20)
    assert len(dense._corners(whole.transform.uncropped(picture(40, 20)), (16, 16))) == 1
    assert len(dense._corners(predictor(crop=0.875).transform.uncropped(picture(16, 16)), (16, 16))) == 4


def test_images_that_are_too_long_are_refused():
    with pytest.raises(UserError, match=r"an image: 3000x2 pixels are too long for a map; divide the image"):
        next(predictor().predict([picture(2, 3000)]))
    assert next(predictor("depth", stretch=True).predict([picture(2, 3000)])).shape == (2, 3000)


def test_outputs_that_are_not_finite_are_refused():
    made = predictor()
    made.head.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"the segmentation that is predicted is not finite; the weights are damaged"):
        next(made.predict([picture(16, 16)]))


def test_many_images_and_classes_a_few_at_a_time(monkeypatch):
    made = predictor(outputs=7)
    images = [dense.whole_image(picture(*size), made.transform) for size in ((20, 33), (16, 16), (90, 14))]
    whole = list(made.maps(images, made._embed, 64))
    assert len(set(whole[0].flatten().tolist())) > 1
    monkeypatch.setattr(dense, "MAX_VALUES", 2000)
    for found, expected in zip(made.maps(images, made._embed, 2), whole, strict=True):
        assert torch.equal(found, expected)


def test_files_and_pictures_are_taken(tmp_path):
    made = predictor()
    image = Image.effect_noise((20, 24), 60).convert("RGB")
    image.save(tmp_path / "a.png")
    (of_file,), (of_picture,) = made.predict(tmp_path / "a.png"), made.predict([image])
    assert torch.equal(of_file, of_picture)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b.png: cannot be read as an image"):
        next(made.predict(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "normals"}, "its head is of an unknown kind, normals"),
        ({"size": [16, -1]}, "its sizes should be positive numbers"),
        ({"outputs": 4}, "its head does not match its description"),
        ({"kind": "depth"}, "depth has one output"),
        ({"size": [16, 18]}, "its size is no multiple of the encoder's patches of 4 pixels"),
        ({"max_deviations": "many"}, "max_deviations should be a positive number"),
        ({"max_pixels": "many"}, "max_pixels should be a number"),
        ({"layers": "2"}, "its sizes should be positive numbers"),
        ({"crop": None}, ""),
        ({"facts": 3}, ""),
    ],
)
def test_a_damaged_description_is_one_line(tmp_path, change, message):
    file = tmp_path / "depth.safetensors"
    write_dense(file, predictor())
    metadata = read_safetensors(file)[0]
    values = {**json.loads(metadata[heads_file.DENSE]), **change}
    save_file(load_file(file), file, {**metadata, heads_file.DENSE: json.dumps(values)})
    with pytest.raises(UserError, match=rf"{re.escape(str(file))}: .*({message})") as caught:
        load_dense(file)
    assert "\n" not in str(caught.value)


def test_inspect_and_convert(tmp_path, capsys):
    """The encoder is converted; that the head is not, is said."""
    for kind in ("depth", "segmentation"):
        write_dense(tmp_path / f"{kind}.safetensors", predictor(kind))
        assert main(["inspect", str(tmp_path / f"{kind}.safetensors")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"head +depth\n", out)
    assert re.search(r"head +segmentation, 3 classes\n", out)
    assert (
        main(["convert", str(tmp_path / "depth.safetensors"), str(tmp_path / "out.safetensors"), "--to", "timm"]) == 0
    )
    assert "note: the head for depth or segmentation is not included; ijepa.load_dense reads it" in (
        capsys.readouterr().out)  # fmt: skip
    assert "ijepa_classifier" not in " ".join(load_file(tmp_path / "out.safetensors"))


def test_other_files_are_refused(tmp_path):
    encoder = untrained_encoder(SPEC, 0)
    ijepa.save_encoder(encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"holds no depth or segmentation head; give a depth.safetensors"):
        load_dense(tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"no such file; python evaluate.py checkpoint=RUN_DIR task=depth leaves a"):
        load_dense(tmp_path)
    for kind in ("depth", "segmentation"):
        write_dense(tmp_path / f"{kind}.safetensors", predictor(kind))
    with pytest.raises(UserError, match=r"holds depth.safetensors, segmentation.safetensors; give one of these files"):
        load_dense(tmp_path)
    with pytest.raises(UserError, match=r"holds no classifier; give a classifier.safetensors"):
        ijepa.load_classifier(tmp_path / "depth.safetensors")
