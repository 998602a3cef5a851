"""ImageNet, Places205 and iNaturalist 2018: small ones in the layouts in which they are published."""

import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
from helpers import picture, train_config
from torchvision.datasets import imagenet as theirs

from ijepa.data import sources
from ijepa.util.errors import UserError

TENCH, HORN, HEN = "n01440764", "n03394916", "n01514859"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def source(name, root, *overrides):
    return sources.build(train_config(f"data={name}", f"data.root={root}", *overrides).data, 0)


def jpeg(seed):
    buffer = io.BytesIO()
    picture(seed, 24, 32).save(buffer, "JPEG")
    return buffer.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)


def tarred(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def refused(name, root, *overrides):
    """The one line that says why."""
    with pytest.raises(UserError) as caught:
        source(name, root, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TRAIN = {f"train/{HORN}/{HORN}_1.JPEG": 1, f"train/{TENCH}/{TENCH}_7.JPEG": 2, f"train/{HEN}/{HEN}_3.JPEG": 3}
VAL = {f"val/{TENCH}/ILSVRC2012_val_00000002.JPEG": 5, f"val/{HORN}/ILSVRC2012_val_00000001.JPEG": 4}
FLAT = {"val/ILSVRC2012_val_00000001.JPEG": 4, "val/ILSVRC2012_val_00000002.JPEG": 5}
NAMES = ["tench, Tinca tinca", "hen", "French horn, horn"]


def devkit():
    """The first validation image is a horn, the second a tench."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    rows = [(1, HORN, "French horn, horn", "x", 0), (2, TENCH, "tench, Tinca tinca", "x", 0), (3, "n1", "fish", "x", 2)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, dtype=[(field, object) for field in fields])})
    files = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": b"1\n2\n"}
    return tarred({f"ILSVRC2012_devkit_t12/data/{name}": content for name, content in files.items()}, "w:gz")


def archives(monkeypatch, root, **changed):
    """The three archives as published, or ``changed``, with their checksums."""
    inner = {f"{name.split('/')[1]}.tar": tarred({name.split("/")[2]: jpeg(seed)}) for name, seed in TRAIN.items()}
    flat = {name.removeprefix("val/"): jpeg(seed) for name, seed in FLAT.items()}
    for part, content in {"train": tarred(inner), "val": tarred(flat), "devkit": devkit()}.items():
        name = theirs.ARCHIVE_META[part][0]
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(theirs.ARCHIVE_META, part, (name, digest))
        write(root, {name: changed.get(part, content)})


def pixels(seed):
    return np.asarray(picture(seed, 24, 32)).astype(float)


def check_imagenet(found):
    assert found.classes == {"class": NAMES}
    for images, seeds in ((found.train, {0: 2, 1: 3, 2: 1}), (found.val, {0: 5, 2: 4})):
        assert len(images) == len(seeds)
        for i, label in enumerate(images.labels["class"]):
            shown = np.asarray(images.read(i)).astype(float)
            assert np.abs(shown - pixels(seeds[label])).mean() < np.abs(shown - pixels(9)).mean() / 4, images.name(i)
    assert isinstance(found.train.fingerprint(), str)


def test_imagenet_in_class_folders(tmp_path):
    write(tmp_path, {name: jpeg(seed) for name, seed in (TRAIN | VAL).items()})
    write(tmp_path, {f"val/{TENCH}/notes.txt": "no image"})
    found = source("imagenet", tmp_path)
    check_imagenet(found)
    assert found.notes == ["1 files are not images and were skipped: notes.txt"]


def test_imagenet_with_a_flat_val(monkeypatch, tmp_path):
    write(tmp_path, {name: jpeg(seed) for name, seed in (TRAIN | FLAT).items()})
    assert refused("imagenet", tmp_path).endswith(f"{DEVKIT}, which lists their classes, is missing; put it there")
    elsewhere = tmp_path / "archives"
    archives(monkeypatch, elsewhere)
    shutil.move(elsewhere / DEVKIT, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    check_imagenet(source("imagenet", tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    theirs.parse_devkit_archive(tmp_path)  # what torchvision leaves behind will do, too
    (tmp_path / DEVKIT).unlink()
    check_imagenet(source("imagenet", tmp_path))
    write(tmp_path, {"val/ILSVRC2012_val_00000003.JPEG": jpeg(0)})
    assert "ILSVRC2012_val_00000003.JPEG is neither in a class folder nor named" in refused("imagenet", tmp_path)
    write(tmp_path, {"meta.bin": "nothing"})
    assert "meta.bin cannot be read; remove it" in refused("imagenet", tmp_path)


def test_imagenet_from_its_archives(monkeypatch, tmp_path, capsys):
    archives(monkeypatch, tmp_path)
    check_imagenet(source("imagenet", tmp_path))
    assert capsys.readouterr().out.count("unpack   ILSVRC2012_img_") == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "train", "val", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", DEVKIT
    }  # fmt: skip
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", DEVKIT):
        (tmp_path / name).unlink()
    check_imagenet(source("imagenet", tmp_path))
    assert capsys.readouterr().out == ""


def test_imagenet_s_faults(monkeypatch, tmp_path):
    assert "neither train/ with a folder per class nor ILSVRC2012_img_train.tar" in refused("imagenet", tmp_path)
    archives(monkeypatch, tmp_path, train=b"half")
    assert "ILSVRC2012_img_train.tar cannot be unpacked: its checksum is wrong" in refused("imagenet", tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    archives(monkeypatch, tmp_path, devkit=b"half")
    assert f"{DEVKIT} cannot be unpacked: its checksum is wrong" in refused("imagenet", tmp_path)
    write(tmp_path, {f"val/{TENCH}/1.JPEG": jpeg(0), "train/2.JPEG": jpeg(0)})
    assert "train/2.JPEG is not in a class folder" in refused("imagenet", tmp_path)
    (tmp_path / "train" / "2.JPEG").unlink()
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val").mkdir()
    assert f"no image in {tmp_path / 'val'}" in refused("imagenet", tmp_path)
    assert refused("imagenet", tmp_path / "none") == f"data.root={tmp_path / 'none'}: no such folder"


PLACES = {"a/abbey/gsun_1.jpg": 0, "f/field/wild/gsun_2.jpg": 73, "z/zen_garden/gsun_3.jpg": 204}


def places(root, images, lists=""):
    write(root / images, {name: jpeg(label) for name, label in PLACES.items()})
    lines = [f"{name} {label}\n" for name, label in PLACES.items()]
    write(root / lists, {"train_places205.csv": "".join(lines), "val_places205.csv": lines[1]})


@pytest.mark.parametrize(
    ("images", "lists"),
    [
        ("data/vision/torralba/deeplearning/images256", "trainvalsplit_places205"),
        ("vision/torralba/deeplearning/images256", "trainvalsplit_places205"),
        ("images256", ""),
        (".", ""),
    ],
)
def test_places205(tmp_path, images, lists):
    places(tmp_path, images, lists)
    found = source("places205", tmp_path)
    names = found.classes["class"]
    assert (len(names), names[0], names[73], names[204]) == (205, "abbey", "field/wild", "zen_garden")
    assert found.train.labels == {"class": [0, 73, 204]}
    assert found.val.labels == {"class": [73]}
    assert found.train.name(1) == str(tmp_path / images / "f/field/wild/gsun_2.jpg")
    assert found.val.read(0).size == (32, 24)
    assert isinstance(found.train.fingerprint(), str)


def test_places205_in_class_folders(tmp_path):
    for part in ("train", "val"):
        write(tmp_path / part, {"abbey/1.jpg": jpeg(1), "zen_garden/2.jpg": jpeg(2)})
    found = source("places205", tmp_path)
    assert found.classes == {"class": ["abbey", "zen_garden"]}
    assert found.val.labels == {"class": [0, 1]}
    shutil.rmtree(tmp_path / "val")
    assert f"no image in {tmp_path / 'val'}" in refused("places205", tmp_path)


@pytest.mark.parametrize("line", ["a/abbey/gsun_1.jpg", "a/abbey/gsun_1.jpg 205", "a/abbey/gsun_1.jpg -1", " 3", "7"])
def test_a_malformed_line_is_named(tmp_path, line):
    places(tmp_path, "images256")
    write(tmp_path, {"val_places205.csv": f"a/abbey/gsun_1.jpg 0\n{line}\n"})
    fault = refused("places205", tmp_path)
    assert fault.startswith(f"data.root={tmp_path}: {tmp_path / 'val_places205.csv'}, line 2: should be an image and")


def test_places205_s_faults(tmp_path):
    assert "contains neither train_places205.csv" in refused("places205", tmp_path)
    places(tmp_path, "images256")
    (tmp_path / "images256" / "a/abbey/gsun_1.jpg").unlink()
    assert source("places205", tmp_path).train.labels["class"] == [0, 73, 204]  # missing ones come up when read
    shutil.rmtree(tmp_path / "images256")
    assert "images such as a/abbey/gsun_1.jpg should be in it or its data/vision" in refused("places205", tmp_path)
    (tmp_path / "val_places205.csv").write_text("")
    (tmp_path / "images256").mkdir()
    assert "val_places205.csv lists no image" in refused("places205", tmp_path)
    (tmp_path / "val_places205.csv").unlink()
    assert "val_places205.csv: No such file" in refused("places205", tmp_path)


def inat(root):
    """Two species; their ids are not in a row."""
    categories = [{"id": 7477, "name": "7477", "supercategory": "Plantae"}, {"id": 12, "name": "12"}]
    for part, images in {"train": {31: 7477, 2: 12, 5: 12}, "val": {9: 7477}}.items():
        listed = [{"id": i, "file_name": f"train_val2018/Plantae/{c}/{i}.jpg"} for i, c in images.items()]
        marks = [{"id": i, "image_id": i, "category_id": c} for i, c in reversed(images.items())]
        content = {"info": {}, "images": listed, "annotations": marks, "categories": categories}
        write(root, {f"{part}2018.json": json.dumps(content)})
        write(root, {image["file_name"]: jpeg(image["id"]) for image in listed})


def test_inat18(tmp_path):
    inat(tmp_path)
    found = source("inat18", tmp_path)
    assert found.classes == {"class": ["12", "7477"]}
    assert found.train.labels == {"class": [1, 0, 0]}
    assert found.val.labels == {"class": [1]}
    assert found.train.name(0) == str(tmp_path / "train_val2018/Plantae/7477/31.jpg")
    assert found.val.read(0).size == (32, 24)
    write(tmp_path, {"categories.json": json.dumps([{"id": 12, "name": "Bellis perennis"}, {"id": 7477, "name": "b"}])})
    assert source("inat18", tmp_path).classes == {"class": ["Bellis perennis", "b"]}


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("val2018.json", None, "val2018.json: No such file"),
        ("train2018.json", "{", "train2018.json is not valid JSON: "),
        ("train2018.json", b"\xff\xfe", "train2018.json is not valid JSON: "),
        ("val2018.json", "[" * 200_000, "val2018.json is not valid JSON: nested more than 100 levels deep"),
        ("categories.json", "[" * 101 + "]" * 101, "categories.json is not valid JSON: nested more than 100 levels"),
        ("train2018.json", [], "train2018.json differs from the published file: "),
        (
            "train2018.json",
            ("categories", None),
            "train2018.json differs from the published file: 'categories' is missing",
        ),
        ("val2018.json", ("images", None), "val2018.json differs from the published file: 'images' is missing"),
        ("val2018.json", ("images", []), "val2018.json differs from the published file: it lists no images"),
        ("val2018.json", ("images", [{"id": 9, "file_name": 5}]), "val2018.json differs from the published file: "),
        (
            "val2018.json",
            ("annotations", []),
            "val2018.json differs from the published file: it lists no category for train_val2018",
        ),
        (
            "val2018.json",
            ("annotations", [{"image_id": 9, "category_id": 4}]),
            "it lists no category for train_val2018/",
        ),
        (
            "categories.json",
            [{"id": 12, "name": "a"}],
            "categories.json differs from the published file: 7477 is missing",
        ),
    ],
)
def test_a_faulty_json_is_named(tmp_path, file, change, problem):
    inat(tmp_path)
    path = tmp_path / file
    if change is None:
        path.unlink()
    elif isinstance(change, str | bytes):
        write(tmp_path, {file: change})
    elif isinstance(change, list):
        path.write_text(json.dumps(change))
    else:
        content = json.loads(path.read_text())
        key, value = change
        content[key] = value
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    assert problem in refused("inat18", tmp_path)


def test_listed_images_that_lie_nowhere(tmp_path):
    inat(tmp_path)
    shutil.rmtree(tmp_path / "train_val2018")
    assert refused("inat18", tmp_path).endswith("images such as train_val2018/Plantae/7477/31.jpg should be in it")
