"""predict.py with a head for depth or segmentation: a map of each image."""

import csv
import shutil

import numpy as np
import pytest
import torch
from helpers import command
from PIL import Image
from safetensors.torch import load_file, save_file

import ijepa
from ijepa.data.maps import MapFolder
from ijepa.interop.reading import read_safetensors
from ijepa.run import map_predictor, predictions

pytestmark = pytest.mark.slow

SMALL = [f"task.{kind}.{key}" for kind in ("depth", "segmentation")
         for key in ("layers=[1,2]", "min_steps=40", "epochs=1", "lr=[0.1]")]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Where `heads` are written, by the first test that needs them."""
    return tmp_path_factory.mktemp("made") / "heads"


@pytest.fixture
def heads(finished, mapped, invoke, made):
    """A folder with heads for both; only read."""
    if not made.exists():
        roots = [
            f"data.depth_root={mapped}/depth",
            "data.depth_scale=0.001",
            f"data.segmentation_root={mapped}/classes",
        ]
        code, _, error = invoke("evaluate.py", f"checkpoint={finished[0]}", "task=[depth,segmentation]", *roots, *SMALL,
                                "baselines=false", "data.workers=0", f"output={made}")  # fmt: skip
        assert code == 0, error
    return made


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


def test_a_stopped_command_resumes(heads, new, invoke, stopped, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 1)
    output = tmp_path / "maps"
    arguments = [f"checkpoint={heads}/depth.safetensors", f"data.root={new}", "data.workers=0", "data.batch_size=2"]
    assert invoke("predict.py", *arguments, f"output={tmp_path / 'whole'}")[0] == 0
    out = stopped(4, *arguments, f"output={output}")
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


def test_names_of_maps():
    """Those of the images, where no other map or folder has them."""
    files = ["a.jpg", "a.png", "a.png.jpg", "b/c.jpg", "maps.jpg", "x.jpg", "x.png/y.jpg"]
    assert map_predictor.map_names(files, ".png") == [
        "a.jpg.png", "a.png.png", "a.png.jpg.png", "b/c.png", "maps.jpg.png", "x.jpg.png", "x.png/y.png",
    ]  # fmt: skip
    assert map_predictor.map_names(["a.jpg", "maps.jpg"], ".tif") == ["a.tif", "maps.tif"]


def test_maps_of_images_with_one_stem_are_found(heads, new, invoke, tmp_path):
    """By the names that they get."""
    code, _, error = invoke("predict.py", f"checkpoint={heads}/depth.safetensors", f"data.root={new}",
                            "data.workers=0", f"output={tmp_path / 'maps'}")  # fmt: skip
    assert code == 0, error
    reader = MapFolder("depth", tmp_path / "maps", new, 1.0, None)
    for name in ("wide.png", "wide.jpg"):
        assert reader.find(str(new / name)) == str(tmp_path / "maps" / f"{name}.tif")


def test_overwriting_deletes_what_was_there(heads, new, pictures, invoke, tmp_path):
    """Maps of another kind, or of other images, must not be taken for these; other files stay."""
    output = tmp_path / "maps"
    arguments = ["data.workers=0", f"output={output}"]
    code, _, error = invoke("predict.py", f"checkpoint={heads}/segmentation.safetensors", f"data.root={new}",
                            *arguments)  # fmt: skip
    assert code == 0, error
    assert (output / "warm" / "val-0.png").is_file()
    (output / "note.txt").write_text("mine")
    code, _, error = invoke("predict.py", f"checkpoint={heads}/depth.safetensors", f"data.root={new}/warm",
                            *arguments, "overwrite=true")  # fmt: skip
    assert code == 0, error
    left = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert left == {"maps.csv", "maps.png", "note.txt", *(f"val-{number}.tif" for number in range(4))}


def test_long_images_and_names_are_reported(heads, tmp_path, invoke):
    root = tmp_path / "new"
    root.mkdir()
    Image.new("RGB", (3000, 2)).save(root / "long.png")
    Image.new("RGB", (30, 20)).save(root / f"{'n' * 246}.png")
    code, _, error = invoke("predict.py", f"checkpoint={heads}/depth.safetensors", f"data.root={root}",
                              "data.workers=2", f"output={tmp_path / 'maps'}")  # fmt: skip
    assert code == 0, error
    found = {row["file"]: row for row in rows(tmp_path / "maps" / "maps.csv")}
    assert "3000x2 pixels are too long for a map; divide the image" in found["long.png"]["error"]
    assert (tmp_path / "maps" / found[f"{'n' * 246}.png"]["map"]).is_file()


def test_an_error_in_one_process_ends_all(heads, new, tmp_path):
    """The others do not wait for it, or end with a traceback."""
    state = load_file(heads / "depth.safetensors")
    broken = {name: value * float("nan") if "ijepa_classifier" in name else value for name, value in state.items()}
    save_file(broken, tmp_path / "depth.safetensors", read_safetensors(heads / "depth.safetensors")[0])
    for number in range(6):  # those of the second process: blank images would do for both
        shutil.copy(next(new.rglob("val-0.png")), new / f"z{number}.png")
    result = command("predict.py", f"checkpoint={tmp_path / 'depth.safetensors'}", f"data.root={new}",
                     "data.workers=0", f"output={tmp_path / 'maps'}", "hardware=cpu", "hardware.strategy=ddp",
                     "hardware.devices=2", OMP_NUM_THREADS="1")  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "the depth that is predicted is not finite; the weights are damaged" in result.stderr


def test_mistakes(heads, new, invoke, tmp_path):
    def error(*arguments):
        code, _, text = invoke("predict.py", *arguments)
        assert code == 2
        assert text.count("\n") == 1
        return text

    checkpoint, root = f"checkpoint={heads}/depth.safetensors", f"data.root={new}"
    assert "maps are written to a folder; try depth_maps" in error(checkpoint, root, "output=maps.csv")
    assert "is inside data.root=" in error(checkpoint, root, f"output={new}/maps")
    assert "give a folder of its own" in error(checkpoint, root, f"output={tmp_path}")
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
