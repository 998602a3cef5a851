"""predict.py with a head for depth or segmentation: a map of each image."""

import csv
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import ijepa
from ijepa.data.maps import MapFolder
from ijepa.run import map_predictor, predictions

pytestmark = pytest.mark.slow

SMALL = [f"task.{kind}.{key}" for kind in ("depth", "segmentation")
         for key in ("layers=[1,2]", "min_steps=40", "epochs=1", "lr=[0.1]")]  # fmt: skip


@pytest.fixture
def heads(finished, mapped, invoke):
    """A folder with heads for both."""
    roots = [f"data.depth_root={mapped}/depth", "data.depth_scale=0.001", f"data.segmentation_root={mapped}/classes"]
    code, _, error = invoke("evaluate.py", f"checkpoint={finished[0]}", "task=[depth,segmentation]", *roots, *SMALL,
                            "baselines=false", "data.workers=0", f"output={mapped}/heads")  # fmt: skip
    assert code == 0, error
    return mapped / "heads"


@pytest.fixture
def new(pictures, tmp_path):
    """New images of two shapes in folders, two that differ in their suffix alone, and a damaged one."""
    root = tmp_path / "new"
    shutil.copytree(pictures / "val", root)
    with Image.open(next(root.rglob("*.png"))) as image:
        image.resize((90, 30)).save(root / "wide.png")
        image.save(root / "wide.jpg")
    (root / "bad.png").write_bytes(b"\x89PNG no more")
    return root


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["depth", "segmentation"])
def test_maps(heads, new, invoke, tmp_path, kind):
    file, output = heads / f"{kind}.safetensors", tmp_path / "maps"
    arguments = [f"checkpoint={file}", f"data.root={new}", "data.workers=0", f"output={output}"]
    code, out, error = invoke("predict.py", *arguments, "data.batch_size=3")
    assert code == 0, error
    assert f"predicts maps of {'depth' if kind == 'depth' else '2 classes'} of 11 images in" in out
    assert "unreadable, without a map: 1 of 11: " in out
    found = {row["file"]: row for row in rows(output / "maps.csv")}
    assert list(found["wide.png"]) == ["file", "map", "error"]
    suffix = ".tif" if kind == "depth" else ".png"
    names = {file: row["map"] for file, row in found.items()}
    assert names["wide.png"] == f"wide.png{suffix}"
    assert names["wide.jpg"] == f"wide.jpg{suffix}"
    assert names["warm/val-0.png"] == f"warm/val-0{suffix}"
    assert names["bad.png"] == ""
    assert "bad.png" in found["bad.png"]["error"]
    predictor = ijepa.load_dense(file)
    reader = MapFolder(kind, output, new, 1.0, None)
    for name, path in names.items():
        if path:
            (expected,) = predictor.predict(new / name)
            values = reader(str(new / path))  # as an image of that name
            assert values.shape == expected.shape
            assert (values == expected).float().mean() > 0.999 if kind == "segmentation" else torch.allclose(
                values, expected, rtol=1e-4)  # fmt: skip
    with Image.open(output / "maps.png") as image:
        assert image.height > image.width
    code, _, error = invoke("predict.py", *arguments)
    assert code == 2
    assert "maps.csv: exists; choose another name, or add overwrite=true" in error
    assert invoke("predict.py", *arguments, "overwrite=true")[0] == 0


def test_a_stopped_command_resumes(heads, new, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 1)
    output = tmp_path / "maps"
    arguments = [f"checkpoint={heads}/depth.safetensors", f"data.root={new}", "data.workers=0", "data.batch_size=2"]
    assert invoke("predict.py", *arguments, f"output={tmp_path / 'whole'}")[0] == 0
    original = predictions._rows

    def stop(*values):
        if values[3] == 4:  # the chunk's first image
            raise KeyboardInterrupt
        return original(*values)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "_rows", stop)
        code, out, _ = invoke("predict.py", *arguments, f"output={output}")
    assert code == 128 + signal.SIGINT
    assert "stopped after 4 of 11 images; the same command resumes" in out
    code, out, error = invoke("predict.py", *arguments, f"output={output}")
    assert code == 0, error
    assert "resumes  after 4 images" in out
    whole = {path.relative_to(tmp_path / "whole"): path for path in (tmp_path / "whole").rglob("*.tif")}
    assert len(whole) == 10
    for name, path in whole.items():
        assert (output / name).read_bytes() == path.read_bytes()
    assert (output / "maps.csv").read_bytes() == (tmp_path / "whole" / "maps.csv").read_bytes()


def test_maps_of_many_classes_are_grey_values(tmp_path):
    values = torch.arange(600).view(20, 30)
    map_predictor.write_map(tmp_path / "a.png", values, 600)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), values.numpy())
    map_predictor.write_map(tmp_path / "b.png", values % 200, 200)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), values.numpy() % 200)
        assert len(set(image.convert("RGB").getdata())) > 100


def test_mistakes(heads, new, invoke, tmp_path):
    def error(*arguments):
        code, _, text = invoke("predict.py", *arguments)
        assert code == 2
        assert text.count("\n") == 1
        return text

    checkpoint, root = f"checkpoint={heads}/depth.safetensors", f"data.root={new}"
    assert "maps are written to a folder; give one, such as maps" in error(checkpoint, root, "output=maps.csv")
    assert "is inside data.root=" in error(checkpoint, root, f"output={new}/maps")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.png").write_text("dear")
    for more in ([], ["overwrite=true"]):
        assert "holds other files, which maps could replace; give a new folder" in error(
            checkpoint, root, f"output={tmp_path}/mine", *more)  # fmt: skip
    assert "depth.safetensors predicts maps, not classes of images; omit it" in error(checkpoint, root, "labels=[a]")
    assert "probabilities=true: depth.safetensors predicts maps" in error(checkpoint, root, "probabilities=true")
    assert "holds depth.safetensors, segmentation.safetensors; give one of these files" in error(
        f"checkpoint={heads}", root)  # fmt: skip


def test_nothing_is_left_if_not_wanted(finished, mapped, invoke):
    roots = [f"data.depth_root={mapped}/depth", "data.depth_scale=0.001"]
    code, out, error = invoke("evaluate.py", f"checkpoint={finished[0]}", "task=[depth,logistic]", *roots, *SMALL[:4],
                              "baselines=false", "data.workers=0", "write_models=false",
                              f"output={mapped}/none")  # fmt: skip
    assert code == 0, error
    assert ".safetensors" not in out
    assert not list((mapped / "none").glob("*.safetensors"))
