"""data=clevr: CLEVR's own layout and the labels of the paper's two tasks."""

import json
import shutil
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import picture, train_config
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from ijepa.data import sources
from ijepa.data.sets import UnreadableError
from ijepa.run import build
from ijepa.util.errors import UserError

SCENES = {  # distances of the objects, and the labels written by hand: objects - 3, and the class of the smallest
    "train": [([9.2, 12.0, 8.0], 0, 0), ([8.01, 9.9, 10.5, 11.0], 1, 1), ([8.6] * 10, 7, 2)],
    "val": [([9.01, 9.5, 13.0], 0, 3), ([9.51, 11.2, 10.0], 0, 4), ([10.7, 10.01, 11.0, 12.0, 13.5], 2, 5)],
}


def source(root):
    return sources.build(train_config("data=clevr", f"data.root={root}").data, 0)


def refused(root):
    """The one line that says why."""
    with pytest.raises(UserError) as caught:
        source(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def clevr(tmp_path):
    """CLEVR_v1.0 of six scenes."""
    folder = tmp_path / "CLEVR_v1.0"
    for part, scenes in SCENES.items():
        listed = []
        (folder / "images" / part).mkdir(parents=True)
        for i, (distances, *_) in enumerate(scenes):
            name = f"CLEVR_{part}_{i:06}.png"
            picture(i, 20, 30).convert("RGBA").save(folder / "images" / part / name)
            objects = [{"pixel_coords": [100, 90, distance], "shape": "cube"} for distance in distances]
            listed.append({"image_index": i, "image_filename": name, "split": part, "objects": objects})
        file = folder / "scenes" / f"CLEVR_{part}_scenes.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"info": {"split": part}, "scenes": listed}))
    return folder


def test_extreme_values_are_found(clevr):
    np.save(clevr / "extreme.npy", np.full((20, 30, 3), 1e30, np.float32))
    (clevr / "extreme.npy").rename(clevr / "images" / "train" / "CLEVR_train_000001.png")
    with pytest.raises(UnreadableError, match=r"000001.png \(values from 1e\+30 to .*above data.max_deviations=10000"):
        source(clevr).train.read(1)


def test_labels_are_those_of_the_paper_s_tasks(clevr):
    for root in (clevr, clevr.parent):
        found = source(root)
        for images, part in ((found.train, "train"), (found.val, "val")):
            assert images.labels["count"] == [count for _, count, _ in SCENES[part]]
            assert images.labels["distance"] == [distance for _, _, distance in SCENES[part]]
            assert images.name(1) == str(clevr / "images" / part / f"CLEVR_{part}_000001.png")
            assert images.read(2).mode == "RGB"
            assert images.read(2).size == (30, 20)
            assert isinstance(images.fingerprint(), str)
        assert found.classes["count"] == [f"{count} objects" for count in range(3, 11)]
        assert found.classes["distance"] == [
            "up to 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "above 10"
        ]  # fmt: skip


def test_evaluation_sees_the_whole_of_them(clevr):
    config = train_config("data=clevr", f"data.root={clevr}", "data.image_size=16", "data.workers=0")
    found = sources.build(config.data, 0)
    data = build.data(config.data, found, None, 0, config.hardware, 0)
    image = found.val.read(0)
    expected = TF.to_dtype(
        TF.pil_to_tensor(image.resize((16, 16), Image.Resampling.BILINEAR)), torch.float32, scale=True
    )
    torch.testing.assert_close(data.eval_transform(image), expected)


@pytest.mark.parametrize(
    ("scene", "problem"),
    [
        ({"objects": []}, "a scene has 0 objects"),
        ({"objects": [{"pixel_coords": [0, 0, 9.0]}] * 11}, "a scene has 11 objects"),
        ({"objects": [{"pixel_coords": [0, 0, 100.5]}] * 3}, "an object is 100.5 away"),
        ({"objects": [{"pixel_coords": [0, 0]}] * 3}, "differs from the published file: "),
        ({"objects": [{"shape": "cube"}] * 3}, "'pixel_coords' is missing"),
        ({}, "'objects' is missing"),
    ],
)
def test_scenes_that_are_none_of_clevr_s(clevr, scene, problem):
    file = clevr / "scenes" / "CLEVR_val_scenes.json"
    file.write_text(json.dumps({"scenes": [{"image_filename": "CLEVR_val_000000.png", **scene}]}))
    line = refused(clevr)
    assert line.startswith(f"data.root={clevr}: {file} differs from the published file: ")
    assert problem in line


def test_what_is_missing_is_named(clevr, monkeypatch):
    def refuse(*arguments, **keywords):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    file = clevr / "scenes" / "CLEVR_val_scenes.json"
    file.write_text("[")
    assert f"{file} is not valid JSON" in refused(clevr)
    file.write_text('{"scenes": []}')
    assert "it lists no scene" in refused(clevr)
    file.unlink()
    assert f"{file}: No such file" in refused(clevr)
    shutil.rmtree(clevr / "images" / "val")
    assert f"no folder {clevr / 'images' / 'val'}" in refused(clevr)
    for image in (clevr / "images" / "train").iterdir():
        image.unlink()
    assert "none of its 3 image files can be read" in refused(clevr)
    shutil.rmtree(clevr)
    line = refused(clevr.parent)
    assert (
        "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip could not be downloaded (no network); put CLEVR_v1.0.zip"
        in line
    )
    assert refused(clevr) == f"data.root={clevr}: no such folder"  # nothing of 18 GB goes where nobody wants it
