"""Data sets that torchvision reads: small ones, in the layouts that it expects; MedMNIST's files."""

import hashlib
import json
import re
from urllib.error import URLError

import numpy as np
import pytest
from helpers import picture, train_config
from scipy.io import savemat
from torchvision import datasets

from ijepa.data import sources
from ijepa.util.errors import UserError


def source(name, root, *overrides):
    return sources.build(train_config(f"data={name}", f"data.root={root}", *overrides).data, 0)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, 8, 8).save(path)


def lines(path, *texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(texts) + "\n")


def food101(root, monkeypatch):
    base = root / "food-101"
    for part, numbers in (("train", (1, 2)), ("test", (3,))):
        listed = {dish: [f"{dish}/{number}" for number in numbers] for dish in ("pho", "apple_pie")}
        lines(base / "meta" / f"{part}.json", json.dumps(listed))
        for names in listed.values():
            for name in names:
                save(base / "images" / f"{name}.jpg")
    return ["apple_pie", "pho"], [1, 1, 0, 0], [1, 0]


def flowers102(root, monkeypatch):
    base = root / "flowers-102"
    for number in range(1, 7):
        save(base / "jpg" / f"image_{number:05d}.jpg")
    savemat(base / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 5]], "tstid": [[4, 6]]})
    savemat(base / "imagelabels.mat", {"labels": [[5, 1, 2, 1, 9, 102]]})
    checksums = {key: (name, hashlib.md5((base / name).read_bytes(), usedforsecurity=False).hexdigest())
                 for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}  # fmt: skip
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", {**datasets.Flowers102._file_dict, **checksums})
    return None, [4, 0, 1, 8], [0, 101]


def pets(root, monkeypatch):
    base = root / "oxford-iiit-pet"
    lines(base / "annotations" / "trainval.txt", "Abyssinian_1 1 1 1", "great_pyrenees_1 2 2 1", "Abyssinian_2 1 1 1")
    lines(base / "annotations" / "test.txt", "Abyssinian_3 1 1 1", "great_pyrenees_2 2 2 1")
    for name in ("Abyssinian_1", "Abyssinian_2", "Abyssinian_3", "great_pyrenees_1", "great_pyrenees_2"):
        save(base / "images" / f"{name}.jpg")
    return ["Abyssinian", "Great Pyrenees"], [0, 1, 0], [0, 1]


def dtd(root, monkeypatch):
    base = root / "dtd" / "dtd"
    for part, number in (("train", 1), ("val", 2), ("test", 3)):
        lines(base / "labels" / f"{part}1.txt", *(f"{kind}/{kind}_{number}.jpg" for kind in ("dotted", "banded")))
        for kind in ("dotted", "banded"):
            save(base / "images" / kind / f"{kind}_{number}.jpg")
    return ["banded", "dotted"], [1, 0, 1, 0], [1, 0]


def eurosat(root, monkeypatch):
    for kind in ("Forest", "River"):
        for number in range(5):
            save(root / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg", number)
    return ["Forest", "River"], None, None


def svhn(root, monkeypatch):
    (root / "svhn").mkdir(parents=True)
    parts = {}
    for part, labels in (("train", [10, 1, 9]), ("test", [2, 10])):
        name = datasets.SVHN.split_list[part][1]
        pixels = np.full((32, 32, 3, len(labels)), 7, np.uint8)
        pixels[:, :, 0] = np.arange(len(labels))
        savemat(root / "svhn" / name, {"X": pixels, "y": np.array(labels)[:, None]})
        md5 = hashlib.md5((root / "svhn" / name).read_bytes(), usedforsecurity=False).hexdigest()
        parts[part] = [datasets.SVHN.split_list[part][0], name, md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", parts)
    return [str(digit) for digit in range(10)], [0, 1, 9], [2, 0]


def places365(root, monkeypatch):
    base = root / "places365"
    lines(base / "categories_places365.txt", "/a/airfield 0", "/a/alley 1")
    lines(base / "places365_train_standard.txt", "/a/airfield/1.jpg 0", "/a/alley/1.jpg 1")
    lines(base / "places365_val.txt", "Places365_val_1.jpg 1")
    save(base / "data_256_standard" / "a" / "airfield" / "1.jpg")
    save(base / "data_256_standard" / "a" / "alley" / "1.jpg")
    save(base / "val_256" / "Places365_val_1.jpg")
    monkeypatch.setattr(datasets.Places365, "_check_integrity", lambda self, file, md5, download: True)
    return ["/a/airfield", "/a/alley"], [0, 1], [1]


LAYOUTS = [food101, flowers102, pets, dtd, eurosat, svhn, places365]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout(layout, tmp_path, monkeypatch):
    titles, train, val = layout(tmp_path, monkeypatch)
    found = source(layout.__name__, tmp_path)
    assert len(found.classes["class"]) == 102 if titles is None else found.classes == {"class": titles}
    if train is None:  # split by seed
        assert (len(found.train), len(found.val)) == (8, 2)
    else:
        assert (found.train.labels["class"], found.val.labels["class"]) == (train, val)
    assert found.train.read(0).mode == "RGB"
    assert source(layout.__name__, tmp_path, "data.channels=1").val.read(0).mode == "L"
    with pytest.raises(UserError, match=r"^data.channels=5: these are 8-bit pictures; try 1, 3 or 4"):
        source(layout.__name__, tmp_path, "data.channels=5", "data.mean=[0,0,0,0,0]", "data.std=[1,1,1,1,1]")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_without_a_network(layout, tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(UserError, match=r"^data.root=.*: .* could not be downloaded \(.*\); put torchvision's folder "):
        source(layout.__name__, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_that_is_not_complete(tmp_path):
    (tmp_path / "dtd").mkdir()
    with pytest.raises(
        UserError, match=r"^data.root=.*dtd is corrupt \(Dataset not found.*\); remove it, then it is d"
    ):
        source("dtd", tmp_path)


def test_a_download_is_kept_whole(tmp_path, monkeypatch):
    """It goes to a temporary folder first."""
    seen = []

    def download(self):
        seen.append(self.root)
        dtd(type(tmp_path)(self.root), monkeypatch)
        (self._base_folder / "dtd-r1.0.1.tar.gz").touch()

    monkeypatch.setattr(datasets.DTD, "_download", download)
    assert len(source("dtd", tmp_path / "cache").train) == 4
    assert all(".dtd." in str(folder) for folder in seen)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["dtd"]
    assert [path.name for path in (tmp_path / "cache" / "dtd").iterdir()] == ["dtd"]  # without the archive


def medmnist(path, channels=(), labels=1, **changes):
    arrays = {}
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        arrays[f"{part}_images"] = np.full((count, 28, 28, *channels), 9, np.uint8)
        arrays[f"{part}_labels"] = np.arange(count * labels).reshape(count, labels) % 3
    np.savez(path, **{**arrays, **changes})
    return path


def test_medmnist(tmp_path):
    found = source("medmnist", medmnist(tmp_path / "one.npz"))
    assert (len(found.train), len(found.val)) == (5, 3)
    assert found.classes == {"class": ["0", "1", "2"]}
    assert found.train.labels == {"class": [0, 1, 2, 0, 1]}
    assert found.train.read(0).getpixel((0, 0)) == (9, 9, 9)
    several = source("medmnist", medmnist(tmp_path / "two.npz", (3,), 2), "data.val=test", "data.channels=1")
    assert len(several.val) == 2
    assert several.classes == {"label0": ["0", "1", "2"], "label1": ["0", "1", "2"]}
    assert several.val.labels == {"label0": [0, 2], "label1": [1, 0]}


@pytest.mark.parametrize(
    ("changes", "values", "message"),
    [
        ({}, ["data.val=dev"], "data.val=dev: try val or test"),
        ({"train_images": np.zeros((5, 4, 4, 4), np.uint8)}, [], r"data.root=.*: holds images of shape \[5, 4, 4, 4\]"),
        ({"train_labels": np.zeros(5, np.int64)}, [], r"data.root=.*: holds labels of shape \[5\] for 5 images"),
        ({"val_labels": np.zeros((3, 2), np.int64)}, [], "data.root=.*: has other labels for training"),
        ({"val_images": np.array([None])}, [], "data.root=.*: is not one of MedMNIST's files"),
        ({"train_images": np.uint8(3)}, [], r"data.root=.*: holds images of shape \[\]"),
    ],
)
def test_what_is_wrong_with_a_file_of_medmnist(tmp_path, changes, values, message):
    with pytest.raises(UserError) as found:
        source("medmnist", medmnist(tmp_path / "one.npz", **changes), *values)
    assert re.search(f"^{message}", str(found.value)), found.value


def test_a_file_that_is_not_medmnists(tmp_path):
    with pytest.raises(UserError, match="no such file; download one of MedMNIST's"):
        source("medmnist", tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserError, match="is not one of MedMNIST's files"):
        source("medmnist", tmp_path / "one.npy")
    (tmp_path / "text.npz").write_text("no array")
    with pytest.raises(UserError, match="is not one of MedMNIST's files"):
        source("medmnist", tmp_path / "text.npz")
