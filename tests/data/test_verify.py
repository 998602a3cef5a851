"""python -m ijepa.data.verify: what a data set holds."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ijepa.data.inspection import inspect
from ijepa.data.sets import Arrays


@pytest.fixture
def tree(pictures, tmp_path):
    """A copy of the pictures, to be changed."""
    return shutil.copytree(pictures, tmp_path / "tree")


def test_a_sound_folder(pictures, invoke):
    code, out, error = invoke("verify", f"data.root={pictures}", "data.workers=0")
    assert code == 0, error
    assert "training  24 images\nvalidation  8 images" in out
    assert "PNG RGB: 24" in out
    assert "same pixels (" not in out


def test_what_is_wrong_with_a_folder(tree, tmp_path, invoke):
    first, second, third, *_ = sorted((tree / "train" / "cold").iterdir())
    shutil.copy(first, tree / "val" / "warm" / "again.png")
    Image.open(second).save(second.with_suffix(".bmp"))  # another format, the same pixels
    third.write_bytes(third.read_bytes()[:200])
    (tree / "train" / "notes.doc").write_text("no image")
    found = tmp_path / "found.json"
    arguments = ["verify", f"data.root={tree}", "data.workers=0", f"output={found}"]
    code, out, error = invoke(*arguments)
    assert code == 2
    assert f"error: 1 of 34 images cannot be read: {third}" in error
    assert f"8 pictures are in both parts, as {first}, " in out  # the fixture's validation images are the first ones
    assert "the same pixels (training): " in out
    assert "note: 1 files are not images" in out
    content = json.loads(found.read_text())
    assert content["training"]["images"] == 25
    assert content["training"]["kinds"] == {"PNG RGB": 23, "BMP RGB": 1}
    assert content["training"]["duplicates"] == [sorted([str(second), str(second.with_suffix(".bmp"))])]
    again = tree / "val" / "warm" / "again.png"
    assert content["in_both_parts"][0] == [str(first), str(tree / "val" / "cold" / "val-0.png"), str(again)]
    assert content["validation"]["duplicates"] == [[str(tree / "val" / "cold" / "val-0.png"), str(again)]]
    assert len(content["training"]["unreadable"]) == 1
    code, _, error = invoke(*arguments)
    assert code == 2
    assert "exists; add overwrite=true" in error
    assert invoke(*arguments, "data.root=nowhere", "overwrite=true")[0] == 2
    assert json.loads(found.read_text()) == content


@pytest.mark.parametrize("output", ["file.txt/x.json", "folder"])
def test_an_output_that_cannot_be_written_is_refused_first(tree, tmp_path, invoke, output):
    (tmp_path / "file.txt").touch()
    (tmp_path / "folder").mkdir()
    arguments = [f"output={tmp_path / output}", "overwrite=true", "data.workers=0"]
    code, out, error = invoke("verify", f"data.root={tree}", *arguments)
    assert code == 2
    assert "error: output=" in error
    assert "cannot be written: " in error
    assert "images" not in out


@pytest.mark.parametrize("workers", [0, 2])
def test_measures(workers):
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (height, 5, 3), np.uint8) for height in (4, 6, 4)]
    images = Arrays([Image.fromarray(array) for array in (*arrays, arrays[0])], {}, 3)
    found = inspect(images, workers, lambda done: None)
    pixels = np.concatenate([array.reshape(-1, 3) for array in (*arrays, arrays[0])]) / 255
    np.testing.assert_allclose(found.moments.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.std, pixels.std(axis=0), rtol=1e-12)
    assert found.sizes == [(5, 4), (5, 6), (5, 4), (5, 4)]
    assert found.duplicates() == [["image 0", "image 3"]]
    assert found.kinds == {"picture RGB": 4}
